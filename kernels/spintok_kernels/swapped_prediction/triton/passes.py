"""The passes of Sinkhorn and the loss over scores (V, n, LD), K columns of which are codewords.

A program takes one view and every G-th block of rows, and keeps whole rows of scores in registers; KP is the next
power of two of K. Scores may be float16 or float32; arithmetic is float32, in units of log2. Partial sums are added in
a fixed order, so results are deterministic. With LD a multiple of 64, every row is read 16 bytes at a time.
"""

import triton
import triton.language as tl

__all__ = ["columns_kernel", "swap_kernel", "totals_kernel", "update_kernel"]


@triton.jit(do_not_specialize=["n"])
def columns_kernel(scores, parts, n, scale, K: tl.constexpr, KP: tl.constexpr, LD: tl.constexpr, BN: tl.constexpr):
    """Write log2 sum_i 2^(scale * s_ij) over the rows of each program to parts (V, G, LD)."""
    program, programs, view = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    rows, columns = tl.arange(0, BN), tl.arange(0, KP)
    base = scores + view.to(tl.int64) * n * LD
    # Each lane (row of the block, column) has its own running maximum and sum; they are merged once, at the end.
    top = tl.full([BN, KP], -3e38, tl.float32)
    total = tl.zeros([BN, KP], tl.float32)
    for block in range(program, tl.cdiv(n, BN), programs):
        row = block * BN + rows
        mask = (row < n)[:, None] & (columns < LD)[None, :]
        x = tl.load(base + row.to(tl.int64)[:, None] * LD + columns[None, :], mask, other=-float("inf")).to(tl.float32)
        x *= scale
        d = x - top
        # One exponential is enough: that of the smaller term relative to the larger.
        e = tl.exp2(-tl.abs(d))
        total = tl.where(d > 0, total * e + 1, total + e)
        top = tl.maximum(top, x)
    highest = tl.max(top, 0)
    total = tl.sum(total * tl.exp2(top - highest[None, :]), 0)
    tl.store(parts + (view * programs + program) * LD + columns, highest + tl.log2(total), columns < LD)


@triton.jit(do_not_specialize=["n"])
def totals_kernel(
    scores,
    u,
    parts,
    n,
    scale,
    K: tl.constexpr,
    KP: tl.constexpr,
    LD: tl.constexpr,
    BN: tl.constexpr,
    POTENTIAL: tl.constexpr,
):
    """Write column sums of softmax_j(scale * s_ij + u_j), base 2, of the rows of each program to parts (V, G, LD)."""
    program, programs, view = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    rows, columns = tl.arange(0, BN), tl.arange(0, KP)
    base = scores + view.to(tl.int64) * n * LD
    inside = columns < K
    potential = tl.where(inside, 0.0, -float("inf"))
    if POTENTIAL:
        potential = tl.load(u + view * LD + columns, inside, other=-float("inf"))
    total = tl.zeros([BN, KP], tl.float32)
    for block in range(program, tl.cdiv(n, BN), programs):
        row = block * BN + rows
        mask = (row < n)[:, None] & (columns < LD)[None, :]
        x = tl.load(base + row.to(tl.int64)[:, None] * LD + columns[None, :], mask, other=0).to(tl.float32) * scale
        x += potential[None, :]
        e = tl.exp2(x - tl.max(x, 1)[:, None])
        total += tl.where((row < n)[:, None], e / tl.sum(e, 1)[:, None], 0)
    tl.store(parts + (view * programs + program) * LD + columns, tl.sum(total, 0), columns < LD)


@triton.jit
def update_kernel(
    parts,
    exact,
    u,
    programs,
    K: tl.constexpr,
    LD: tl.constexpr,
    BK: tl.constexpr,
    GP: tl.constexpr,
    FIRST: tl.constexpr,
):
    """Update the potentials of the codewords, base 2, exact (V, LD) float64 and u (V, LD) float32, from the parts."""
    columns = tl.program_id(0) * BK + tl.arange(0, BK)
    view = tl.program_id(1)
    g = tl.arange(0, GP)
    mask = (g < programs)[:, None] & (columns < K)[None, :]
    at = parts + (view * programs + g)[:, None] * LD + columns[None, :]
    if FIRST:
        x = tl.load(at, mask, other=-float("inf"))
        top = tl.max(x, 0)
        total = tl.sum(tl.exp2(x - top[None, :]).to(tl.float64), 0)
        new = -(top.to(tl.float64) + tl.log2(total))
    else:
        total = tl.sum(tl.load(at, mask, other=0).to(tl.float64), 0)
        new = tl.load(exact + view * LD + columns, columns < K, other=0) - tl.log2(total)
    tl.store(exact + view * LD + columns, new, columns < K)
    tl.store(u + view * LD + columns, new.to(tl.float32), columns < K)


@triton.jit
def _statistics(x, u, inside, scale, inverse, columns, KP: tl.constexpr):
    """Return, for each row, maximum and sum of the target, and maximum, sum and best code of the prediction."""
    y = x * scale + u[None, :]
    peak = tl.max(y, 1)
    mass = tl.sum(tl.exp2(y - peak[:, None]), 1)
    top = tl.max(tl.where(inside, x, -float("inf")), 1)
    total = tl.sum(tl.where(inside, tl.exp2((x - top[:, None]) * inverse), 0), 1)
    code = tl.min(tl.where(inside & (x == top[:, None]), columns[None, :], KP), 1)
    return peak, mass, top, total, code


@triton.jit
def _swap(x, target, u, inside, scale, inverse, top, total, peak, mass):
    """Return P of scores x minus Q of the scores `target` of the other view, and the row sums of Q times x."""
    y = target * scale + u[None, :]
    q = tl.exp2(y - peak[:, None]) / mass[:, None]
    # With the maximum of the row subtracted both terms of the cross-entropy are >= 0.
    x -= top[:, None]
    p = tl.where(inside, tl.exp2(x * inverse), 0) / total[:, None]
    return p - q, tl.sum(q * x, 1)


@triton.jit(do_not_specialize=["n"])
def swap_kernel(
    scores,
    u,
    losses,
    agreements,
    counts,
    n,
    scale,
    inverse,
    K: tl.constexpr,
    KP: tl.constexpr,
    LD: tl.constexpr,
    BN: tl.constexpr,
    GRAD: tl.constexpr,
    METRICS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Write the cross-entropies in bits to losses (G,) and rows of equal codes to agreements (G,), for both views.

    With GRAD, overwrite the scores by P - Q of the other view; padded columns become 0. With METRICS, count the best
    codes of each view in counts (2, LD).
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    rows, columns = tl.arange(0, BN), tl.arange(0, KP)
    inside = columns[None, :] < K
    other = n.to(tl.int64) * LD
    loss = tl.zeros([BN], tl.float32)
    same = tl.zeros([BN], tl.int32)
    for block in range(program, tl.cdiv(n, BN), programs):
        row = block * BN + rows
        valid = row < n
        mask = valid[:, None] & (columns < LD)[None, :]
        at = scores + row.to(tl.int64)[:, None] * LD + columns[None, :]
        u1 = tl.load(u + columns, columns < K, other=-float("inf"))
        u2 = tl.load(u + LD + columns, columns < K, other=-float("inf"))
        x1 = tl.load(at, mask, other=0).to(tl.float32)
        x2 = tl.load(at + other, mask, other=0).to(tl.float32)
        peak1, mass1, top1, total1, code1 = _statistics(x1, u1, inside, scale, inverse, columns, KP)
        peak2, mass2, top2, total2, code2 = _statistics(x2, u2, inside, scale, inverse, columns, KP)
        if TILE < KP:
            # Wide rows: rereading them tile by tile from the cache is cheaper than spilling registers.
            cross = tl.zeros([BN], tl.float32)
            for start in range(0, KP, TILE):
                part = start + tl.arange(0, TILE)
                within = part[None, :] < K
                there = valid[:, None] & (part < LD)[None, :]
                spot = scores + row.to(tl.int64)[:, None] * LD + part[None, :]
                y1 = tl.load(spot, there, other=0).to(tl.float32)
                y2 = tl.load(spot + other, there, other=0).to(tl.float32)
                v1 = tl.load(u + part, part < K, other=-float("inf"))
                v2 = tl.load(u + LD + part, part < K, other=-float("inf"))
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
            # Integers: the order of the additions does not change the result. A NaN row has no code.
            tl.atomic_add(counts + code1, 1, valid & (code1 < K))
            tl.atomic_add(counts + LD + code2, 1, valid & (code2 < K))
            same += tl.where(valid & (code1 == code2), 1, 0)
    tl.store(losses + program, tl.sum(loss, 0))
    tl.store(agreements + program, tl.sum(same, 0))
