"""Self-attention of padded utterances, each of which has the same bits alone and in any batch."""

import torch
from torch import Tensor

from spintok_kernels.attention import torch as torch_attention

__all__ = ["attend"]

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor,
    positions: Tensor | None = None,
    gate: Tensor | None = None,
) -> Tensor:
    """Return softmax(q k^T / sqrt(E) + gate * positions) v over the valid frames of each utterance.

    On a GPU the frames of an utterance have the same bits whatever its padding and its batch: keys pass in blocks of
    fixed size up to the utterance's own length. Sums are float32, as in ``spintok_kernels.linear``.

    Args:
        q, k, v: (B, T, H, E) float32, float16 or bfloat16, of equal strides; the last dimension is contiguous, E at
            most 256.
        lengths: (B,) int64, valid frames of each utterance.
        positions: (H, T, T) float32, a bias of each query for each key, with ``gate``; or None.
        gate: (B, H, T) float32, by which the bias of a query is multiplied; or None.

    Returns:
        (B, T, H, E), contiguous; zero where padded. Nothing is differentiable.

    Raises:
        ValueError: an argument's shape, dtype or layout is wrong.
    """
    if q.dtype not in _DTYPES or not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"q, k, v: float32, float16 or bfloat16 are needed, not {q.dtype}, {k.dtype}, {v.dtype}")
    if q.ndim != 4 or not q.shape == k.shape == v.shape or not 1 <= q.shape[3] <= 256:
        raise ValueError(f"q, k, v: (B, T, H, E), E <= 256; got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}")
    if not q.stride() == k.stride() == v.stride() or (q.stride(3) != 1 and q.shape[3] > 1):
        raise ValueError("q, k, v: equal strides and a contiguous last dimension are needed")
    batch, frames, heads, _ = q.shape
    if lengths.shape != (batch,) or lengths.dtype is not torch.int64:
        raise ValueError(f"lengths: ({batch},) int64 is needed, got {tuple(lengths.shape)} {lengths.dtype}")
    if (positions is None) != (gate is None):
        raise ValueError("positions and gate go together")
    if positions is not None and gate is not None:
        if positions.shape != (heads, frames, frames) or gate.shape != (batch, heads, frames):
            raise ValueError(
                f"positions, gate: ({heads}, {frames}, {frames}) and ({batch}, {heads}, {frames}) are needed, "
                f"got {tuple(positions.shape)} and {tuple(gate.shape)}"
            )
        if positions.dtype is not torch.float32 or gate.dtype is not torch.float32:
            raise ValueError(f"positions, gate: float32 is needed, not {positions.dtype} and {gate.dtype}")
    result: Tensor = torch.ops.spintok.attend(q, k, v, lengths, positions, gate)
    return result


torch.library.define(
    "spintok::attend",
    "(Tensor q, Tensor k, Tensor v, Tensor lengths, Tensor? positions, Tensor? gate) -> Tensor",
)


@torch.library.register_fake("spintok::attend")  # type: ignore[untyped-decorator]
def _(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, positions: Tensor | None, gate: Tensor | None) -> Tensor:
    return q.new_empty(q.shape)


@torch.library.impl("spintok::attend", "cpu")
def _(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, positions: Tensor | None, gate: Tensor | None) -> Tensor:
    return torch_attention.attend(q, k, v, lengths, positions, gate)


@torch.library.impl("spintok::attend", "cuda")
def _(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, positions: Tensor | None, gate: Tensor | None) -> Tensor:
    # Imported only for CUDA tensors: a machine without a GPU needs no Triton.
    from spintok_kernels.attention import triton as kernels

    return kernels.attend(q, k, v, lengths, positions, gate)
