"""The passes of Sinkhorn over scores (V, n, K) on a GPU: each reads the scores once and writes sums only.

A program takes one view and every G-th block of rows, and keeps whole rows of columns in registers; KP is the
next power of two of K. Partial sums are added in a fixed order, so the result is deterministic. Scores may be
float16 or float32; arithmetic is float32, in units of log2.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = [
    "MAX_CODES",
    "column_logsumexp",
    "column_totals",
    "log2_units",
    "padded",
    "pass_tile",
    "programs",
    "row_logsumexp",
]

MAX_CODES = 8192
"""Codewords a row may have: more do not fit in the registers of one program."""

LOG2_E: float = 1 / math.log(2)


@triton.jit(do_not_specialize=["n"])
def column_logsumexp_kernel(scores, parts, n, k, scale, KP: tl.constexpr, BN: tl.constexpr):
    """parts (V, G, K) <- log2 sum_i 2^(scale * s_ij) over the rows of each program."""
    program, programs, view = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    rows, columns = tl.arange(0, BN), tl.arange(0, KP)
    inside = columns[None, :] < k
    base = scores + view.to(tl.int64) * n * k
    # Every lane (row of the block, column) keeps its own running maximum and sum; they meet once, at the end.
    top = tl.full([BN, KP], -3e38, tl.float32)
    total = tl.zeros([BN, KP], tl.float32)
    for block in range(program, tl.cdiv(n, BN), programs):
        row = (block * BN + rows).to(tl.int64)
        mask = (row[:, None] < n) & inside
        x = tl.load(base + row[:, None] * k + columns[None, :], mask, other=-float("inf")).to(tl.float32) * scale
        d = x - top
        # One exponential: of the smaller of the two terms, relative to the larger.
        e = tl.exp2(-tl.abs(d))
        total = tl.where(d > 0, total * e + 1, total + e)
        top = tl.maximum(top, x)
    highest = tl.max(top, 0)
    total = tl.sum(total * tl.exp2(top - highest[None, :]), 0)
    out = parts + (view * programs + program).to(tl.int64) * k + columns
    tl.store(out, highest + tl.log2(total), columns < k)


@triton.jit(do_not_specialize=["n"])
def column_totals_kernel(scores, u, parts, n, k, scale, KP: tl.constexpr, BN: tl.constexpr):
    """parts (V, G, K) <- column sums of softmax_j(scale * s_ij + u_j), base 2, of each program's rows."""
    program, programs, view = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    rows, columns = tl.arange(0, BN), tl.arange(0, KP)
    inside = columns[None, :] < k
    base = scores + view.to(tl.int64) * n * k
    potential = tl.load(u + view * k + columns, columns < k, other=-float("inf"))
    total = tl.zeros([BN, KP], tl.float32)
    for block in range(program, tl.cdiv(n, BN), programs):
        row = (block * BN + rows).to(tl.int64)
        mask = (row[:, None] < n) & inside
        x = tl.load(base + row[:, None] * k + columns[None, :], mask, other=0).to(tl.float32) * scale
        x += potential[None, :]
        e = tl.exp2(x - tl.max(x, 1)[:, None])
        total += tl.where(row[:, None] < n, e / tl.sum(e, 1)[:, None], 0)
    out = parts + (view * programs + program).to(tl.int64) * k + columns
    tl.store(out, tl.sum(total, 0), columns < k)


@triton.jit(do_not_specialize=["n"])
def row_logsumexp_kernel(scores, u, out, n, k, scale, KP: tl.constexpr, BN: tl.constexpr):
    """out (V, n) <- log2 sum_j 2^(scale * s_ij + u_j)."""
    program, programs, view = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    rows, columns = tl.arange(0, BN), tl.arange(0, KP)
    inside = columns[None, :] < k
    base = scores + view.to(tl.int64) * n * k
    potential = tl.load(u + view * k + columns, columns < k, other=-float("inf"))
    for block in range(program, tl.cdiv(n, BN), programs):
        row = (block * BN + rows).to(tl.int64)
        mask = (row[:, None] < n) & inside
        x = tl.load(base + row[:, None] * k + columns[None, :], mask, other=0).to(tl.float32) * scale
        x += potential[None, :]
        top = tl.max(x, 1)
        total = tl.sum(tl.exp2(x - top[:, None]), 1)
        tl.store(out + view.to(tl.int64) * n + row, top + tl.log2(total), row < n)


def pass_tile(k: int) -> tuple[int, int, int]:
    """KP, rows of a block and warps of a pass over rows of k scores. ValueError beyond MAX_CODES."""
    kp = padded(k)
    return kp, max(1, 4096 // kp), 16 if kp == 8192 else 8


def padded(k: int) -> int:
    """The power of two that holds k columns, at least 16. ValueError beyond MAX_CODES."""
    if k > MAX_CODES:
        raise ValueError(f"codebook has {k} rows; on CUDA at most {MAX_CODES} are supported")
    return max(16, int(triton.next_power_of_2(k)))


def programs(scores: Tensor, rows: int) -> int:
    """Programs a view: two a multiprocessor, no more than there are blocks of `rows` rows."""
    if scores.is_cuda:
        processors = torch.cuda.get_device_properties(scores.device).multi_processor_count
    else:
        # Triton's interpreter, in tests.
        processors = 3
    return min(2 * processors, -(-scores.shape[1] // rows))


def column_logsumexp(scores: Tensor, scale: float) -> Tensor:
    """log sum_i exp(scale * scores[v, i, j]) -> (V, K), float64."""
    views, n, k = scores.shape
    kp, rows, warps = pass_tile(k)
    grid = (programs(scores, rows), views)
    parts = torch.empty((views, grid[0], k), dtype=torch.float32, device=scores.device)
    with torch.cuda.device_of(scores):
        column_logsumexp_kernel[grid](scores, parts, n, k, scale * LOG2_E, KP=kp, BN=rows, num_warps=warps)
    return torch.logsumexp(parts.double() * math.log(2), 1)


def column_totals(scores: Tensor, scale: float, u: Tensor) -> Tensor:
    """S_j = sum_i softmax_j(scale * scores[v, i] + u[v]) -> (V, K), float64."""
    views, n, k = scores.shape
    kp, rows, warps = pass_tile(k)
    grid = (programs(scores, rows), views)
    parts = torch.empty((views, grid[0], k), dtype=torch.float32, device=scores.device)
    with torch.cuda.device_of(scores):
        column_totals_kernel[grid](scores, log2_units(u), parts, n, k, scale * LOG2_E, KP=kp, BN=rows, num_warps=warps)
    return parts.sum(1, dtype=torch.float64)


def row_logsumexp(scores: Tensor, scale: float, u: Tensor) -> Tensor:
    """log sum_j exp(scale * scores[v, i, j] + u[v, j]) -> (V, n), float32."""
    views, n, k = scores.shape
    kp, rows, warps = pass_tile(k)
    grid = (programs(scores, rows), views)
    out = torch.empty((views, n), dtype=torch.float32, device=scores.device)
    with torch.cuda.device_of(scores):
        row_logsumexp_kernel[grid](scores, log2_units(u), out, n, k, scale * LOG2_E, KP=kp, BN=rows, num_warps=warps)
    return out.mul_(math.log(2))


def log2_units(u: Tensor) -> Tensor:
    """float64 potentials of exp as float32 potentials of 2^x."""
    return (u * LOG2_E).float()
