"""Self-attention on a GPU: one kernel of fixed blocks.

A program takes BM queries of one head of one utterance. Keys pass from the first on, in blocks of BN, up to the
utterance's own length, with the running maximum of Milakov and Gimelshein 2018, "Online normalizer calculation for
softmax", and the order of Dao 2023, "FlashAttention-2". Nothing depends on the padded length or on other utterances.
"""

import math
from dataclasses import dataclass, field

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["FLOAT32", "HALF", "Tile", "attend", "attention_kernel"]


@dataclass(frozen=True)
class Tile:
    """Queries of a program, and keys of a block."""

    queries: int
    keys: int
    options: dict[str, int] = field(default_factory=dict)


# Chosen from what the compiler makes of them (NOTES.md), not yet compared on a GPU.
FLOAT32 = Tile(64, 16, {"num_warps": 4, "num_stages": 2})
HALF = Tile(128, 64, {"num_warps": 8, "num_stages": 2})


@triton.jit(do_not_specialize=["frames"])
def attention_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    lengths_ptr,
    positions_ptr,
    gate_ptr,
    out_ptr,
    frames,
    heads,
    stride_b,
    stride_t,
    stride_h,
    scale,
    E: tl.constexpr,
    WIDE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    GATED: tl.constexpr,
):
    """BM queries of one head of one utterance; `scale` includes log2(e)."""
    LOG2E: tl.constexpr = 1.4426950408889634
    batch = tl.program_id(0) // heads
    head = tl.program_id(0) % heads
    length = tl.load(lengths_ptr + batch)
    rows = tl.program_id(1) * BM + tl.arange(0, BM)
    e = tl.arange(0, WIDE)
    # 32 bits hold the offsets within an utterance.
    base = batch.to(tl.int64) * stride_b + head * stride_h
    inside = (rows < length)[:, None] & (e < E)[None, :]
    q = tl.load(q_ptr + base + rows[:, None] * stride_t + e[None, :], mask=inside, other=0.0)
    top = tl.full([BM], -float("inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, WIDE], tl.float32)
    if GATED:
        gate = tl.load(gate_ptr + tl.program_id(0).to(tl.int64) * frames + rows, mask=rows < length, other=0.0) * LOG2E
    # Tiles of padding have nothing to do.
    stop = tl.where(tl.program_id(1) * BM < length, length, 0)
    for start in range(0, stop, BN):
        keys = start + tl.arange(0, BN)
        at = base + keys[:, None] * stride_t + e[None, :]
        valid = (keys < length)[:, None] & (e < E)[None, :]
        k = tl.load(k_ptr + at, mask=valid, other=0.0)
        s = tl.dot(q, tl.trans(k), input_precision="tf32x3") * scale
        if GATED:
            near = (rows < length)[:, None] & (keys < length)[None, :]
            place = positions_ptr + head.to(tl.int64) * frames * frames + (rows[:, None] * frames + keys[None, :])
            s += gate[:, None] * tl.load(place, mask=near, other=0.0)
        s = tl.where((keys < length)[None, :], s, -float("inf"))
        higher = tl.maximum(top, tl.max(s, 1))
        p = tl.exp2(s - higher[:, None])
        shrink = tl.exp2(top - higher)
        total = total * shrink + tl.sum(p, 1)
        v = tl.load(v_ptr + at, mask=valid, other=0.0)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="tf32x3")
        top = higher
    # Padded queries are zero; those of a tile of padding have met no key.
    acc = tl.where((rows < length)[:, None], acc / tl.where(total > 0, total, 1.0)[:, None], 0.0)
    out = out_ptr + (batch.to(tl.int64) * frames * heads + head) * E + (rows[:, None] * (heads * E) + e[None, :])
    tl.store(out, acc.to(out_ptr.dtype.element_ty), mask=(rows < frames)[:, None] & (e < E)[None, :])


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor,
    positions: Tensor | None,
    gate: Tensor | None,
    *,
    tile: Tile | None = None,
) -> Tensor:
    """See ``spintok_kernels.attention.attend``; arguments are not checked. Tests pass smaller tiles."""
    batch, frames, heads, width = q.shape
    out = torch.empty(batch, frames, heads, width, dtype=q.dtype, device=q.device)
    if out.numel() == 0:
        return out
    if tile is None:
        tile = FLOAT32 if q.dtype is torch.float32 else HALF
    with torch.cuda.device_of(q):
        attention_kernel[(batch * heads, triton.cdiv(frames, tile.queries))](
            *(q, k, v, lengths, out if positions is None else positions.contiguous()),
            *(out if gate is None else gate.contiguous(), out, frames, heads, *q.stride()[:3]),
            math.log2(math.e) / math.sqrt(width),
            E=width,
            WIDE=max(16, triton.next_power_of_2(width)),
            BM=tile.queries,
            BN=tile.keys,
            GATED=positions is not None,
            **tile.options,
        )
    return out
