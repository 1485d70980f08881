"""The compiled front end of ``steps``: log-mel bands, running normalisation, a convolution and a projection."""

import ctypes
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from spintok_kernels.steps.cpu import STEPS, chosen_isa, pack, pointers, raise_for

__all__ = ["BandSettings", "FrontEndWeights", "PackedFrontEnd", "Statistics"]

Statistics = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""What a stream has heard, float64: peak, weight and energy, of one number each, and sums and squares of the bands."""

_PER_FRAME = 2


class BandSettings(NamedTuple):
    """How bands are measured and normalised."""

    hop: int
    """Samples between windows."""
    fft: int
    """Samples of a transform, a power of 2, at least those of a window."""
    half_life: float
    """Windows after which what was heard counts half."""
    prior: float
    """Weights of the priors of bands and level, in windows."""
    level_prior: float
    floor: float
    """Added to the energies, relative to the level."""
    quiet: float
    """The least amplitude of the loudest window."""
    variance_floor: float


class FrontEndWeights(NamedTuple):
    """The float32 weights of a front end of M bands, C channels and width D."""

    window: Tensor
    """(samples,)."""
    mel: Tensor
    """(fft / 2 + 1, M), each band in one piece."""
    prior_energy: Tensor
    """()."""
    prior_mean: Tensor
    """(M,)."""
    prior_variance: Tensor
    scale: Tensor
    """(M,), of the normalised bands."""
    shift: Tensor
    convolution: Tensor
    """(2, M, C): a frame is made of two windows."""
    convolution_bias: Tensor | None
    norm_scale: Tensor | None
    """(C,), of the norm of the features, if there is one."""
    norm_shift: Tensor | None
    projection: Tensor | None
    """(D, C), if there is one; otherwise D is C."""
    projection_bias: Tensor | None


class _FrontEnd(ctypes.Structure):
    """`FrontEnd` of steps.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("length", "hop", "fft", "bands", "channels", "width")),
        *((name, ctypes.c_double) for name in ("half_life", "prior", "level_prior")),
        *((name, ctypes.c_double) for name in ("floor", "quiet", "variance_floor", "prior_energy")),
        *((name, ctypes.c_void_p) for name in ("prior_mean", "prior_variance", "window", "waves", "mel", "ends")),
        *((name, ctypes.c_void_p) for name in ("scale", "shift", "convolution", "convolution_bias")),
        *((name, ctypes.c_void_p) for name in ("norm_scale", "norm_shift", "projection", "projection_bias")),
        ("eps", ctypes.c_double),
    )


class PackedFrontEnd:
    """A front end whose weights are packed for the compiled core: a snapshot.

    Args:
        weights: its weights.
        settings: the settings of the bands.
        eps: the epsilon of the norm.

    Raises:
        RuntimeError: the compiled core cannot run here.
    """

    def __init__(self, weights: FrontEndWeights, settings: BandSettings, eps: float) -> None:
        self._isa = chosen_isa()
        self._weights = FrontEndWeights._make(None if w is None else w.detach().float().clone() for w in weights)
        own = self._weights
        self.width = own.convolution.shape[2] if own.projection is None else len(own.projection)
        convolution = pack(own.convolution.flatten(0, 1).t().contiguous(), self._isa)
        projection = None if own.projection is None else pack(own.projection, self._isa)
        biases = [None if b is None else pack(b, self._isa) for b in (own.convolution_bias, own.projection_bias)]
        angles = torch.arange(settings.fft // 2 + 1, dtype=torch.float64) * (2 * math.pi / settings.fft)
        waves = torch.stack([angles.cos(), angles.sin()]).float()
        held = [own.prior_mean.double(), own.prior_variance.double(), own.window, waves, own.mel.t().contiguous()]
        held += [_ends(own.mel), own.scale, own.shift]
        self._held = [*held, convolution, biases[0], own.norm_scale, own.norm_shift, projection, biases[1]]
        hop, fft, *numbers = settings
        sizes = [len(own.window), hop, fft, own.mel.shape[1], own.convolution.shape[2], self.width]
        self._front = _FrontEnd(*sizes, *numbers, float(own.prior_energy), *pointers(self._held), eps)

    def equals(self, weights: FrontEndWeights) -> bool:
        """Whether these are the weights that were packed."""
        return all(
            (a is None and b is None) or (a is not None and b is not None and torch.equal(a.detach().float(), b))
            for a, b in zip(weights, self._weights, strict=True)
        )

    def run(
        self, waveforms: Sequence[Tensor], valid: Sequence[int], before: Sequence[Statistics], frames: int, chunk: int
    ) -> tuple[Tensor, list[Statistics]]:
        """Local features (B, frames, D), and the statistics after the first ``chunk`` frames.

        Args:
            waveforms: for each stream, all samples of the frames, float32.
            valid: for each stream, how many frames count, at least 1; the features of the others are zero.
            before: for each stream, what it has heard.
        """
        batch, bands = len(waveforms), len(self._weights.scale)
        needed = (_PER_FRAME * frames - 1) * self._front.hop + len(self._weights.window)
        if any(w.dtype is not torch.float32 or w.stride() != (1,) or len(w) < needed for w in waveforms):
            raise ValueError(f"waveforms: {needed} samples of contiguous float32 are needed")
        sizes = [1, 1, 1, bands, bands]
        for one in before:
            if any(s.dtype is not torch.float64 or s.numel() != size for s, size in zip(one, sizes, strict=True)):
                raise ValueError(f"statistics: {sizes} float64 numbers are needed")
        after: list[Statistics] = [
            (torch.empty_like(a), torch.empty_like(b), torch.empty_like(c), torch.empty_like(d), torch.empty_like(e))
            for a, b, c, d, e in before
        ]
        kept = [tensor.contiguous() for one in before for tensor in one]
        out = torch.empty(batch, frames, self.width)
        status = STEPS.functions().spintok_steps_front_end(
            ctypes.byref(self._front),
            batch,
            frames,
            chunk,
            pointers(waveforms),
            (ctypes.c_int64 * batch)(*valid),
            pointers(kept),
            pointers([tensor for one in after for tensor in one]),
            out.data_ptr(),
            self._isa,
        )
        raise_for(status)
        return out, after


def _ends(mel: Tensor) -> Tensor:
    """The first bin of each band that is not zero, and the one after the last: (M, 2) int64."""
    heard = (mel != 0).to(torch.int8)
    first, after = heard.argmax(0), len(mel) - heard.flip(0).argmax(0)
    return torch.stack([first, after.where(heard.any(0), first)], 1).contiguous()
