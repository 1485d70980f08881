"""The compiled CPU core of ``steps``: transformer layers and convolutions."""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from spintok_kernels.native import LEVELS, NativeLibrary

__all__ = [
    "STEPS",
    "LayerWeights",
    "PackedConvolution",
    "PackedLayers",
    "chosen_isa",
    "pack",
    "pointers",
    "raise_for",
]


def _declare(library: ctypes.CDLL) -> None:
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.spintok_steps_panel.argtypes = [number]
    library.spintok_steps_pack.argtypes = [pointer, size, size, number, pointer]
    library.spintok_steps_pack.restype = None
    shape: list[type] = [*[size] * 7, number, ctypes.c_float]
    library.spintok_steps.argtypes = [*shape, pointer, size, *[pointer] * 6, number]
    library.spintok_steps_convolve.argtypes = [pointer, *[size] * 6, *[pointer] * 3, number]
    library.spintok_steps_front_end.argtypes = [pointer, *[size] * 3, *[pointer] * 5, number]


# Torch's products are faster than the portable core's.
STEPS = NativeLibrary("steps", abi=2, declare=_declare, portable=False)


class LayerWeights(NamedTuple):
    """The float32 weights of a transformer layer of width D and F hidden features."""

    norm_scale: Tensor
    """(D,), of the norm before or after attention."""
    norm_shift: Tensor
    qkv: Tensor
    """(3 D, D): queries, keys and values, each of all heads."""
    qkv_bias: Tensor
    out: Tensor
    """(D, D)."""
    out_bias: Tensor
    second_scale: Tensor
    """(D,), of the norm before or after the feed-forward network."""
    second_shift: Tensor
    expand: Tensor
    """(F, D)."""
    expand_bias: Tensor
    contract: Tensor
    """(D, F)."""
    contract_bias: Tensor


class PackedLayers:
    """Transformer layers whose weights are packed for the compiled core: a snapshot.

    Args:
        layers: their weights, lowest first.
        heads: the number of attention heads.
        pre: whether the norms come before attention and feed-forward network, not after the residuals.
        eps: the epsilon of the norms.

    Raises:
        RuntimeError: the compiled core cannot run here.
    """

    def __init__(self, layers: Sequence[LayerWeights], heads: int, *, pre: bool, eps: float) -> None:
        self._isa = chosen_isa()
        self.width, self.heads = layers[0].qkv.shape[1], heads
        self.hidden = layers[0].expand.shape[0]
        self._pre, self._eps = pre, eps
        self._packed = [[pack(weight.detach().float(), self._isa) for weight in layer] for layer in layers]
        self._pointers = pointers([tensor for layer in self._packed for tensor in layer])

    def equals(self, layers: Sequence[LayerWeights]) -> bool:
        """Whether these are the weights that were packed."""
        return len(layers) == len(self._packed) and all(
            torch.equal(pack(weight.detach().float(), self._isa), packed)
            for layer, own in zip(layers, self._packed, strict=True)
            for weight, packed in zip(layer, own, strict=True)
        )

    def run(
        self,
        x: Tensor,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        gone: Sequence[int],
        valid: Sequence[int],
        chunk: int,
        wanted: Sequence[int],
    ) -> dict[int, Tensor]:
        """The outputs of the ``wanted`` layers, counted from 1, each (B, T, D).

        A frame attends to the valid frames of its stream's step, and to those of the past that there have been.

        Args:
            x: (B, T, D) float32, the input of the first layer; overwritten.
            keys, values: those of each stream, (layers, heads, past, D / heads) float16, the latest frame last; the
                first ``chunk`` frames of the step are taken in.
            gone: for each stream, the number of frames before this step.
            valid: for each stream, how many of the T frames are valid, at least 1.
            chunk: the frames that become part of the past, at most T.
            wanted: layers to return.
        """
        batch, frames, width = x.shape
        shape = (len(self._packed), self.heads, keys[0].shape[2], self.width // self.heads)
        for past in (*keys, *values):
            if past.shape != shape or past.dtype is not torch.float16 or not past.is_contiguous():
                raise ValueError(f"keys, values: contiguous float16 {shape} is needed, got {tuple(past.shape)}")
        if width != self.width or x.dtype is not torch.float32 or not x.is_contiguous() or not len(keys) == batch:
            raise ValueError(f"x: contiguous float32 ({len(keys)}, T, {self.width}) is needed, got {tuple(x.shape)}")
        found = {layer: torch.empty_like(x) for layer in wanted}
        outputs = [found.get(layer + 1) for layer in range(len(self._packed))]
        status = STEPS.functions().spintok_steps(
            len(self._packed),
            width,
            self.heads,
            self.hidden,
            shape[2],
            frames,
            chunk,
            int(self._pre),
            self._eps,
            self._pointers,
            batch,
            x.data_ptr(),
            pointers(keys),
            pointers(values),
            (ctypes.c_int64 * batch)(*gone),
            (ctypes.c_int64 * batch)(*valid),
            pointers(outputs),
            self._isa,
        )
        raise_for(status)
        return found


class PackedConvolution:
    """GELU of a grouped convolution over time whose weights are packed for the compiled core: a snapshot.

    Args:
        weight: (N, inner, taps) float32, N outputs in ``groups``.
        bias: (N,).
        groups: the number of groups of ``inner`` channels each.

    Raises:
        RuntimeError: the compiled core cannot run here.
    """

    def __init__(self, weight: Tensor, bias: Tensor, groups: int) -> None:
        self._isa = chosen_isa()
        self.groups = groups
        self.outputs, self.inner, self.taps = weight.shape
        self._panels, self._bias = self._pack(weight, bias)

    def _pack(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        rows = weight.detach().float().transpose(1, 2).reshape(self.groups, self.outputs // self.groups, -1)
        panels = torch.stack([pack(group.contiguous(), self._isa) for group in rows])
        return panels, torch.stack([pack(own, self._isa) for own in bias.detach().float().view(self.groups, -1)])

    def equals(self, weight: Tensor, bias: Tensor) -> bool:
        """Whether these are the weights that were packed."""
        panels, biases = self._pack(weight, bias)
        return torch.equal(panels, self._panels) and torch.equal(biases, self._bias)

    def run(self, x: Tensor) -> Tensor:
        """(B, T - taps + 1, N) from x (B, T, groups * inner) float32."""
        batch, frames = x.shape[0], x.shape[1] - self.taps + 1
        signal = x.view(batch, x.shape[1], self.groups, self.inner).permute(2, 0, 1, 3).contiguous()
        out = x.new_empty(batch, frames, self.outputs)
        status = STEPS.functions().spintok_steps_convolve(
            signal.data_ptr(),
            self.groups,
            batch,
            frames,
            self.taps,
            self.inner,
            self.outputs // self.groups,
            self._panels.data_ptr(),
            self._bias.data_ptr(),
            out.data_ptr(),
            self._isa,
        )
        raise_for(status)
        return out


def chosen_isa() -> int:
    """The number of the core that runs here. Raises ``RuntimeError`` if none does."""
    core, why = STEPS.choose()
    if core == "torch":
        raise RuntimeError(f"steps: the compiled core cannot run here: {why}")
    return LEVELS.index(core)


def pack(weight: Tensor, isa: int) -> Tensor:
    """The panels of a matrix (N, K), or a vector padded to whole panels."""
    library = STEPS.functions()
    width = library.spintok_steps_panel(isa)
    panels = -(-len(weight) // width)
    if weight.ndim == 1:
        return torch.nn.functional.pad(weight, (0, panels * width - len(weight)))
    packed = torch.empty(panels, weight.shape[1], width)
    weight = weight.contiguous()
    library.spintok_steps_pack(weight.data_ptr(), *weight.shape, isa, packed.data_ptr())
    return packed


def pointers(tensors: Sequence[Tensor | None]) -> "ctypes.Array[ctypes.c_void_p]":
    """The addresses of tensors, which have to outlive them."""
    return (ctypes.c_void_p * len(tensors))(*(None if tensor is None else tensor.data_ptr() for tensor in tensors))


def raise_for(status: int) -> None:
    """Raise the error of a status of the core, if it is one."""
    if status:
        raise MemoryError("steps: out of memory") if status == 1 else RuntimeError("steps: this CPU lacks the core")
