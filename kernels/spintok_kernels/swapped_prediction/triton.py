"""The passes of Sinkhorn and the loss on a GPU: each reads the scores (V, n, K) once.

A program takes one view and every G-th block of rows, and keeps whole rows of scores in registers; KP is the next power
of two of K. Partial sums are added in a fixed order, so results are deterministic. Scores may be float16 or float32;
arithmetic is float32, in units of log2.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = [
    "MAX_CODES",
    "column_logsumexp",
    "column_logsumexp_kernel",
    "column_totals",
    "column_totals_kernel",
    "pass_tile",
    "product",
    "swap",
    "swap_kernel",
    "swap_tile",
]

MAX_CODES = 8192
"""The largest supported K: a program keeps a whole row of scores in registers."""

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


def log2_units(u: Tensor) -> Tensor:
    """float64 potentials of exp as float32 potentials of 2^x."""
    return (u * LOG2_E).float()


@triton.jit
def _statistics(x, u, inside, scale, inverse, columns, KP: tl.constexpr):
    # Of each row: maximum and sum of the target's terms; maximum, sum and best code of the prediction's.
    y = x * scale + u[None, :]
    peak = tl.max(y, 1)
    mass = tl.sum(tl.exp2(y - peak[:, None]), 1)
    top = tl.max(tl.where(inside, x, -float("inf")), 1)
    total = tl.sum(tl.where(inside, tl.exp2((x - top[:, None]) * inverse), 0), 1)
    code = tl.min(tl.where(inside & (x == top[:, None]), columns[None, :], KP), 1)
    return peak, mass, top, total, code


@triton.jit
def _swap(x, target, u, inside, scale, inverse, top, total, peak, mass):
    # P of scores x minus Q of the other view's scores `target`, and the rows' sums of Q times x.
    y = target * scale + u[None, :]
    q = tl.exp2(y - peak[:, None]) / mass[:, None]
    x -= top[:, None]
    p = tl.where(inside, tl.exp2(x * inverse), 0) / total[:, None]
    # Below the row's maximum both terms of the cross-entropy are >= 0.
    return p - q, tl.sum(q * x, 1)


@triton.jit(do_not_specialize=["n"])
def swap_kernel(
    scores,
    u,
    losses,
    agreements,
    counts,
    n,
    k,
    scale,
    inverse,
    KP: tl.constexpr,
    BN: tl.constexpr,
    GRAD: tl.constexpr,
    METRICS: tl.constexpr,
    TILE: tl.constexpr,
):
    """losses (G,) <- cross-entropies in bits, agreements (G,) <- rows of equal codes, scores <- gradients.

    The gradient is P - Q of the other view. With METRICS each view's best codes are counted in counts (2, K).
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    rows, columns = tl.arange(0, BN), tl.arange(0, KP)
    inside = columns[None, :] < k
    other = n.to(tl.int64) * k
    loss = tl.zeros([BN], tl.float32)
    same = tl.zeros([BN], tl.int32)
    for block in range(program, tl.cdiv(n, BN), programs):
        row = (block * BN + rows).to(tl.int64)
        valid = row < n
        mask = valid[:, None] & inside
        at = scores + row[:, None] * k + columns[None, :]
        u1 = tl.load(u + columns, columns < k, other=-float("inf"))
        u2 = tl.load(u + k + columns, columns < k, other=-float("inf"))
        x1 = tl.load(at, mask, other=0).to(tl.float32)
        x2 = tl.load(at + other, mask, other=0).to(tl.float32)
        peak1, mass1, top1, total1, code1 = _statistics(x1, u1, inside, scale, inverse, columns, KP)
        peak2, mass2, top2, total2, code2 = _statistics(x2, u2, inside, scale, inverse, columns, KP)
        if TILE < KP:
            # Wide rows: reading them from the cache again, tile by tile, costs less than spilling registers.
            cross = tl.zeros([BN], tl.float32)
            for start in range(0, KP, TILE):
                part = start + tl.arange(0, TILE)
                within = part[None, :] < k
                there = valid[:, None] & within
                spot = scores + row[:, None] * k + part[None, :]
                y1 = tl.load(spot, there, other=0).to(tl.float32)
                y2 = tl.load(spot + other, there, other=0).to(tl.float32)
                v1 = tl.load(u + part, part < k, other=-float("inf"))
                v2 = tl.load(u + k + part, part < k, other=-float("inf"))
                h1, part1 = _swap(y1, y2, v2, within, scale, inverse, top1, total1, peak2, mass2)
                h2, part2 = _swap(y2, y1, v1, within, scale, inverse, top2, total2, peak1, mass1)
                cross += part1 + part2
                if GRAD:
                    tl.store(spot, h1.to(scores.dtype.element_ty), there)
                    tl.store(spot + other, h2.to(scores.dtype.element_ty), there)
        else:
            g1, cross1 = _swap(x1, x2, u2, inside, scale, inverse, top1, total1, peak2, mass2)
            g2, cross2 = _swap(x2, x1, u1, inside, scale, inverse, top2, total2, peak1, mass1)
            cross = cross1 + cross2
            if GRAD:
                tl.store(at, g1.to(scores.dtype.element_ty), mask)
                tl.store(at + other, g2.to(scores.dtype.element_ty), mask)
        loss += tl.where(valid, tl.log2(total1) + tl.log2(total2) - inverse * cross, 0)
        if METRICS:
            # Whole numbers: the order of these additions does not matter. A NaN row has no code.
            tl.atomic_add(counts + code1, 1, valid & (code1 < k))
            tl.atomic_add(counts + k + code2, 1, valid & (code2 < k))
            same += tl.where(valid & (code1 == code2), 1, 0)
    tl.store(losses + program, tl.sum(loss, 0))
    tl.store(agreements + program, tl.sum(same, 0))


def swap_tile(k: int) -> tuple[int, int, int, int]:
    """KP, rows of a block, warps and columns of a tile of the last pass over rows of k scores."""
    kp = padded(k)
    return kp, max(1, 2048 // kp), 16 if kp >= 4096 else 8, min(kp, 4096)


def swap(
    scores: Tensor, scale: float, u: Tensor, temperature: float, grad: bool, metrics: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `loss_torch.swap`."""
    _, n, k = scores.shape
    kp, rows, warps, tile = swap_tile(k)
    count = programs(scores, rows)
    losses = torch.empty(count, dtype=torch.float32, device=scores.device)
    # A pass more, where two more rows in the registers would spill.
    predictions = losses.new_zeros((2, k), dtype=torch.float64)
    if metrics:
        predictions = column_totals(scores, 1.0 / temperature, predictions)
    agreements = torch.empty(count, dtype=torch.int32, device=scores.device)
    counts = torch.zeros((2, k), dtype=torch.int32, device=scores.device)
    with torch.cuda.device_of(scores):
        swap_kernel[(count,)](
            scores,
            log2_units(u),
            losses,
            agreements,
            counts,
            n,
            k,
            scale * LOG2_E,
            LOG2_E / temperature,
            KP=kp,
            BN=rows,
            GRAD=grad,
            METRICS=metrics,
            TILE=tile,
            num_warps=warps,
        )
    loss = losses.sum(dtype=torch.float64) / LOG2_E
    return loss, predictions, counts.double(), agreements.sum().double()


def product(out: Tensor, a: Tensor, b: Tensor, scale: Tensor, add: bool) -> None:
    """out <- scale * a @ b, on top of what it holds with `add`; half operands are summed in float32."""
    result = a @ b if a.dtype == out.dtype else torch.mm(a, b, out_dtype=out.dtype)
    if add:
        out.addcmul_(result, scale)
    else:
        torch.mul(result, scale, out=out)
