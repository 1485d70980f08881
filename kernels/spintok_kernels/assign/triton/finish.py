"""Decide the rows that the main pass leaves open: candidates in float64, and the definition where that is not enough.

One warp decides a row. There are no atomics, and the order of programs does not change a bit of the result.
"""

import triton
import triton.language as tl

from spintok_kernels.assign.triton.common import INF_BITS, LOWEST, bits_of

__all__ = ["finish_kernel", "finish_row"]


@triton.jit
def _try(j, x, c_ptr, d, best, second, winner, D: tl.constexpr, L2: tl.constexpr):
    """Compare code j with the best so far, in float64 with any order of d."""
    c = tl.load(c_ptr + j * D + d, mask=d < D, other=0.0).to(tl.float64)
    if L2:
        s = tl.sum(c * (x - 0.5 * c), 0)
    else:
        s = tl.sum(c * x, 0)
    winner = tl.where((s > best) | ((s == best) & (j < winner)), j, winner)
    return tl.maximum(best, s), tl.maximum(second, tl.minimum(best, s)), winner


@triton.jit
def _try_lanes(
    first,
    second_lane,
    limit,
    tiles,
    k,
    x,
    c_ptr,
    d,
    best,
    second,
    winner,
    D: tl.constexpr,
    LOW: tl.constexpr,
    L2: tl.constexpr,
):
    """Compare all candidates of a part of the codebook: of each lane one code, or all its codes."""
    lane = tl.arange(0, 32)
    top = tl.max(first, 0)
    while top >= limit:
        where = tl.argmax(first, 0)
        deep = tl.max(tl.where(lane == where, second_lane, LOWEST), 0) >= limit
        number = bits_of(top) & LOW
        begin = tl.where(deep, 0, number)
        end = tl.where(deep, tiles, number + 1)
        for t in range(begin, end):
            j = t * 32 + where
            if j < k:
                best, second, winner = _try(j, x, c_ptr, d, best, second, winner, D, L2)
        first = tl.where(lane == where, LOWEST, first)
        top = tl.max(first, 0)
    return best, second, winner


@triton.jit
def _order(j, mask, z_ptr, c_ptr, row, best, second, winner, wrong, D: tl.constexpr, L2: tl.constexpr):
    """Compare 32 codes with the best so far by the definition: float64 sums over d = 0, 1, ..."""
    s = tl.zeros([32], tl.float64)
    square = tl.zeros([32], tl.float64)
    for d in range(D):
        x = tl.load(z_ptr + row * D + d).to(tl.float64)
        c = tl.load(c_ptr + j * D + d, mask=mask, other=0.0).to(tl.float64)
        s += x * c
        if L2:
            square += c * c
    s = s - 0.5 * square
    wrong = tl.maximum(wrong, tl.max((~(tl.abs(s) < float("inf"))).to(tl.int32), 0))
    s = tl.where(mask, s, float("-inf"))
    top = tl.max(s, 0)
    place = tl.min(tl.where(mask & (s == top), j, 0x7FFFFFFF), 0)
    below = tl.max(tl.where(j == place, float("-inf"), s), 0)
    second = tl.maximum(tl.maximum(second, below), tl.minimum(best, top))
    winner = tl.where((top > best) | ((top == best) & (place < winner)), place, winner)
    return tl.maximum(best, top), second, winner, wrong


@triton.jit
def _order_lanes(
    first,
    second_lane,
    limit,
    tiles,
    k,
    z_ptr,
    c_ptr,
    row,
    best,
    second,
    winner,
    wrong,
    D: tl.constexpr,
    LOW: tl.constexpr,
    L2: tl.constexpr,
):
    """Do the same as `_try_lanes` by the definition."""
    lane = tl.arange(0, 32)
    deep = second_lane >= limit
    j = (bits_of(first) & LOW) * 32 + lane
    mask = (first >= limit) & ~deep & (j < k)
    if tl.max(mask.to(tl.int32), 0) > 0:
        best, second, winner, wrong = _order(j, mask, z_ptr, c_ptr, row, best, second, winner, wrong, D, L2)
    if tl.max(deep.to(tl.int32), 0) > 0:
        for t in range(tiles):
            j = t * 32 + lane
            best, second, winner, wrong = _order(
                j, deep & (j < k), z_ptr, c_ptr, row, best, second, winner, wrong, D, L2
            )
    return best, second, winner, wrong


@triton.jit
def finish_row(
    row,
    fair,
    limit,
    p,
    state,
    near,
    z_ptr,
    c_ptr,
    book_ptr,
    ids_ptr,
    scores_ptr,
    margins_ptr,
    lanes_ptr,
    n,
    k,
    tiles,
    splits,
    D: tl.constexpr,
    WIDE: tl.constexpr,
    LOW: tl.constexpr,
    L2: tl.constexpr,
    SPLIT: tl.constexpr,
    DETAILS: tl.constexpr,
):
    """Decide one row: candidates in float64, or the definition if they are too close or the bound does not hold.

    With SPLIT, `state` and `near` (one number a part of the codebook) are the part's only candidate or -1, and whether
    the part has a candidate at all.
    """
    lane = tl.arange(0, 32)
    d = tl.arange(0, WIDE)
    top = tl.load(book_ptr)
    raw = tl.load(book_ptr + 3).to(tl.float64) * tl.load(book_ptr + 4).to(tl.float64)
    best = tl.full([], float("-inf"), tl.float64)
    second = tl.full([], float("-inf"), tl.float64)
    winner = tl.full([], 0x7FFFFFFF, tl.int32)
    wrong = tl.full([], 0, tl.int32)
    x32 = tl.load(z_ptr + row * D + d, mask=d < D, other=0.0)
    finite = (tl.max(bits_of(x32) & 0x7FFFFFFF, 0) < INF_BITS) & (top < float("inf"))
    x = x32.to(tl.float64)
    length = tl.sqrt(tl.sum(x * x, 0))
    # All scores are equal.
    empty = (length == 0) & (not L2)
    if finite & ~empty:
        if fair:
            for part in range(splits):
                base = lanes_ptr + (part * n + row).to(tl.int64) * 64 + lane
                here = 1
                code = -1
                if SPLIT:
                    code = tl.max(tl.where(p == part, state, -1), 0)
                    here = tl.max(tl.where((p == part) & near, 1, 0), 0)
                if here > 0:
                    if code >= 0:
                        best, second, winner = _try(code, x, c_ptr, d, best, second, winner, D, L2)
                    else:
                        best, second, winner = _try_lanes(
                            tl.load(base),
                            tl.load(base + 32),
                            limit,
                            tiles,
                            k,
                            x,
                            c_ptr,
                            d,
                            best,
                            second,
                            winner,
                            D,
                            LOW,
                            L2,
                        )
        size = (length + raw) * raw if L2 else length * raw
        if ~(best - second > D * 4.5e-16 * size):
            # Float64 in this order cannot separate the best two codes, or the bound does not hold.
            best = tl.full([], float("-inf"), tl.float64)
            second = tl.full([], float("-inf"), tl.float64)
            winner = tl.full([], 0x7FFFFFFF, tl.int32)
            if fair:
                for part in range(splits):
                    base = lanes_ptr + (part * n + row).to(tl.int64) * 64 + lane
                    here = 1
                    code = -1
                    if SPLIT:
                        code = tl.max(tl.where(p == part, state, -1), 0)
                        here = tl.max(tl.where((p == part) & near, 1, 0), 0)
                    if here > 0:
                        if code >= 0:
                            best, second, winner, wrong = _order(
                                code + lane, lane == 0, z_ptr, c_ptr, row, best, second, winner, wrong, D, L2
                            )
                        else:
                            best, second, winner, wrong = _order_lanes(
                                tl.load(base),
                                tl.load(base + 32),
                                limit,
                                tiles,
                                k,
                                z_ptr,
                                c_ptr,
                                row,
                                best,
                                second,
                                winner,
                                wrong,
                                D,
                                LOW,
                                L2,
                            )
            else:
                for t in range(tiles):
                    j = t * 32 + lane
                    best, second, winner, wrong = _order(
                        j, j < k, z_ptr, c_ptr, row, best, second, winner, wrong, D, L2
                    )
    elif finite:
        winner = tl.full([], 0, tl.int32)
        best = tl.full([], 0, tl.float64)
        second = tl.where(k > 1, best, float("-inf"))
    good = finite & (wrong == 0)
    tl.store(ids_ptr + row, tl.where(good, winner, -1))
    if DETAILS:
        score = best
        if L2:
            c = tl.load(c_ptr + tl.where(good, winner, 0) * D + d, mask=d < D, other=0.0).to(tl.float64)
            score = -tl.sum((x - c) * (x - c), 0)
        margin = (best - second) * (2.0 if L2 else 1.0)
        tl.store(scores_ptr + row, tl.where(good, score, float("nan")).to(tl.float32))
        tl.store(margins_ptr + row, tl.where(good, margin, float("nan")).to(tl.float32))


@triton.jit(do_not_specialize=["n", "k", "tiles", "items", "splits"])
def finish_kernel(
    z_ptr,
    c_ptr,
    book_ptr,
    ids_ptr,
    scores_ptr,
    margins_ptr,
    lanes_ptr,
    limit_ptr,
    list_ptr,
    counts_ptr,
    n,
    k,
    tiles,
    items,
    splits,
    D: tl.constexpr,
    WIDE: tl.constexpr,
    BN: tl.constexpr,
    SUB: tl.constexpr,
    SPLIT: tl.constexpr,
    SP: tl.constexpr,
    BITS: tl.constexpr,
    L2: tl.constexpr,
    DETAILS: tl.constexpr,
):
    """Decide open rows with one warp: every SUB-th row of a tile's list or, with SPLIT, every `items`-th of all rows.

    `tiles` is the number of groups of 32 codes.
    """
    LOW: tl.constexpr = (1 << BITS) - 1
    pid = tl.program_id(0)
    p = tl.arange(0, SP)
    if SPLIT:
        start, stop, step = pid, n, items
    else:
        start, stop, step = pid % SUB, tl.load(counts_ptr + pid // SUB), SUB
    for i in range(start, stop, step):
        state = p
        near = p >= 0
        decided = tl.full([], 0, tl.int32)
        if SPLIT:
            row = i
            at = p * n + row
            state = tl.load(list_ptr + at, mask=p < splits, other=0)
            bests = tl.load(limit_ptr + 2 * at, mask=p < splits, other=LOWEST)
            room = tl.load(limit_ptr + 2 * at + 1, mask=p < splits, other=0.0)
            fair = tl.min(state, 0) > -2
            limit = tl.max(bests, 0) - tl.max(room, 0)
            near = bests >= limit
            if fair & (tl.sum(near.to(tl.int32), 0) == 1):
                found = tl.max(tl.where(near, state, -1), 0)
                if found >= 0:
                    tl.store(ids_ptr + row, found)
                    decided += 1
        else:
            entry = tl.load(list_ptr + pid // SUB * BN + i)
            fair = entry >= 0
            row = tl.where(fair, entry, -1 - entry)
            limit = tl.load(limit_ptr + row)
        if decided == 0:
            finish_row(
                row,
                fair,
                limit,
                p,
                state,
                near,
                z_ptr,
                c_ptr,
                book_ptr,
                ids_ptr,
                scores_ptr,
                margins_ptr,
                lanes_ptr,
                n,
                k,
                tiles,
                splits,
                D,
                WIDE,
                LOW,
                L2,
                SPLIT,
                DETAILS,
            )
