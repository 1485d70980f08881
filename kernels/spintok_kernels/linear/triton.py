"""Linear layers on a GPU: one kernel of fixed tiles.

A program computes a tile of the result: it goes through K in steps of BK from 0 on, so a number is summed in the same
order wherever its row lies and however many rows there are. Nothing splits K over programs.
"""

from dataclasses import dataclass, field

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["FLOAT32", "HALF", "Tile", "linear", "linear_kernel"]

_GROUP = 8
"""Tiles of rows that follow each other for the same columns, so that the weight is read from the cache."""


@dataclass(frozen=True)
class Tile:
    """Sizes of a tile: rows, columns (fewer for a weight of fewer), and steps of K."""

    rows: int
    columns: int
    depth: int
    options: dict[str, int] = field(default_factory=dict)


# Chosen from what the compiler makes of them (NOTES.md), not yet compared on a GPU. They must not depend on the rows.
FLOAT32 = Tile(128, 128, 16, {"num_warps": 8, "num_stages": 4})
HALF = Tile(128, 128, 64, {"num_warps": 8, "num_stages": 3})


@triton.jit(do_not_specialize=["m"])
def linear_kernel(
    x_ptr,
    w_ptr,
    bias_ptr,
    out_ptr,
    m,
    n,
    x_group,
    x_row,
    K: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    GROUP: tl.constexpr,
    BIAS: tl.constexpr,
    GELU: tl.constexpr,
):
    """One tile (BM, BN) of x (m, K) times w (n, K) transposed; the second axis of programs is the groups'."""
    tiles_m = tl.cdiv(m, BM)
    tiles_n = tl.cdiv(n, BN)
    program = tl.program_id(0)
    group = tl.program_id(1).to(tl.int64)
    band = program // (GROUP * tiles_n) * GROUP
    height = tl.minimum(tiles_m - band, GROUP)
    within = program % (GROUP * tiles_n)
    first = (band + within % height).to(tl.int64) * BM
    rows = tl.arange(0, BM)
    columns = (within // height) * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    # 32 bits hold the offsets within a tile.
    x = x_ptr + group * x_group + first * x_row + (rows[:, None] * x_row + k[None, :])
    w = w_ptr + group * n * K + (columns[None, :] * K + k[:, None])
    row_mask = rows[:, None] < m - first
    column_mask = columns[None, :] < n
    acc = tl.zeros([BM, BN], tl.float32)
    for start in range(0, K, BK):
        if K % BK == 0:
            a = tl.load(x + start, mask=row_mask, other=0.0)
            b = tl.load(w + start, mask=column_mask, other=0.0)
        else:
            a = tl.load(x + start, mask=row_mask & (k[None, :] < K - start), other=0.0)
            b = tl.load(w + start, mask=column_mask & (k[:, None] < K - start), other=0.0)
        # For float32; other types take no notice.
        acc = tl.dot(a.to(b.dtype), b, acc, input_precision="tf32x3")
    if BIAS:
        acc += tl.load(bias_ptr + group * n + columns, mask=columns < n, other=0.0).to(tl.float32)[None, :]
    if GELU:
        acc = 0.5 * acc * (1.0 + tl.erf(acc * 0.7071067811865476))
    out = out_ptr + (group * m + first) * n + (rows[:, None] * n + columns[None, :])
    tl.store(out, acc.to(out_ptr.dtype.element_ty), mask=row_mask & column_mask)


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, dtype: torch.dtype, *, tile: Tile | None = None
) -> Tensor:
    """See ``spintok_kernels.linear.linear``; arguments are not checked. Tests pass smaller tiles."""
    *groups, m, depth = x.shape
    n = weight.shape[-2]
    out = torch.empty(*groups, m, n, dtype=dtype, device=x.device)
    if out.numel() == 0:
        return out
    weight = weight.contiguous()
    if tile is None:
        tile = FLOAT32 if weight.dtype is torch.float32 else HALF
    columns = min(tile.columns, max(16, triton.next_power_of_2(n)))
    grid = (triton.cdiv(m, tile.rows) * triton.cdiv(n, columns), groups[0] if groups else 1)
    with torch.cuda.device_of(x):
        linear_kernel[grid](
            *(x, weight, weight if bias is None else bias.contiguous(), out),
            *(m, n, x.stride(0) if groups else 0, x.stride(-2)),
            K=depth,
            BM=tile.rows,
            BN=columns,
            BK=tile.depth,
            GROUP=_GROUP,
            BIAS=bias is not None,
            GELU=gelu,
            **tile.options,
        )
    return out
