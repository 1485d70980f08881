"""Codebook assignment on a GPU: float16 tensor cores first, and as much more precision as a row needs.

1. `prepare` centres (L2), scales by powers of two and rounds both sides to float16, and measures what that
lost. 2. `nearest_half`, the whole work: one float16 product, a running best two in registers, and a bound on
the error of
   both. Rows whose best two are closer than that go to a worklist.
3. `nearest_split` decides most of those with three TF32 products (float32's precision, nearly).
4. `by_definition` decides the rest, and small problems altogether, by the definition: float64 sums in the
order of d.

Nothing is read back: counters and worklists stay on the device. Their order varies from run to run, the
results do not, as rows are independent.

The bound (z, c scaled; h for the rounded copies; max over codewords j; Cauchy-Schwarz on z.c - h.h):
    err = |z - zh| max|c| + |zh| max|c - ch|                                    rounding to float16
        + (D + 32) 2^-22 (|z| max|c| + max|bias|)                               float32 sums, truncating;
        centring + D 2^-52 (|z_raw| + max|c_raw|) max|c_raw|                             the float64
        definition's own rounding + 2^(TILE_BITS - 23) |best|
        tile numbers in the scores' low bits
A row is decided if best - second > 2 err, so written that NaN is not.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from spintok_kernels.assign.tiles import SPLIT_TILES, tile_sizes

__all__ = ["assign", "by_definition_kernel", "nearest_half_kernel", "nearest_split_kernel", "prepare_kernel"]

# Below so many products float64 for every row takes fewer launches and no more time (estimated).
SMALL = 1 << 28
# Below every score, and finite.
LOWEST = tl.constexpr(-3e38)
# The bias of padding: behind every real score for any ratio of z's scale to the codebook's that `_fair`
# allows.
PAD = tl.constexpr(-1e30)


@triton.jit(do_not_specialize=["valid", "rows"])
def prepare_kernel(
    x_ptr,
    mean_ptr,
    top_ptr,
    half_ptr,
    full_ptr,
    bias_ptr,
    stats_ptr,
    valid,
    rows,
    D: tl.constexpr,
    WIDE: tl.constexpr,
    DP: tl.constexpr,
    BLOCK: tl.constexpr,
    L2: tl.constexpr,
    BOOK: tl.constexpr,
):
    """Rows of x, scaled: float16 (and float32 for a codebook) copies of DP columns, and their statistics.

    stats is (5, rows): norm, norm of what rounding to float16 lost, |bias| (codebook), norm before centring,
    scale. A row of z has its own scale, a codebook one. Rows from `valid` on are padding: row 0 with a bias
    that never wins.
    """
    r = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, WIDE)
    inside = (r < rows)[:, None] & (d < DP)[None, :]
    source = tl.where(r < valid, r, 0)
    x = tl.load(x_ptr + source[:, None] * D + d[None, :], mask=(r < rows)[:, None] & (d < D)[None, :], other=0.0)
    mean_norm = 0.0
    if L2:
        mean = tl.load(mean_ptr + d, mask=d < D, other=0.0)
        x = x - mean[None, :]
        mean_norm = tl.sqrt(tl.sum(mean * mean, 0))
    if BOOK:
        top = tl.load(top_ptr) + tl.zeros([BLOCK], tl.float32)
    else:
        top = tl.max(tl.abs(x), 1)
    # 2^(12 - exponent) takes the largest element into [4096, 8192): clear of overflow, and of subnormal
    # numbers for all that matters. Within 2^+-100, as the scale has to come off again.
    exponent = (top.to(tl.int32, bitcast=True) >> 23) & 255
    scale = (tl.minimum(tl.maximum(266 - exponent, 27), 227) << 23).to(tl.float32, bitcast=True)
    x = x * scale[:, None]
    half = x.to(tl.float16)
    lost = x - half.to(tl.float32)
    square = tl.sum(x * x, 1)
    norm = tl.sqrt(square)
    tl.store(half_ptr + r[:, None] * DP + d[None, :], half, mask=inside)
    bias = tl.zeros([BLOCK], tl.float32)
    if BOOK:
        if L2:
            bias = -0.5 * square
        tl.store(full_ptr + r[:, None] * DP + d[None, :], x, mask=inside)
        tl.store(bias_ptr + r, tl.where(r < valid, bias, PAD), mask=r < rows)
    tl.store(stats_ptr + r, norm, mask=r < rows)
    tl.store(stats_ptr + rows + r, tl.sqrt(tl.sum(lost * lost, 1)), mask=r < rows)
    tl.store(stats_ptr + 2 * rows + r, -bias, mask=r < rows)
    tl.store(stats_ptr + 3 * rows + r, norm + mean_norm * scale, mask=r < rows)
    tl.store(stats_ptr + 4 * rows + r, scale, mask=r < rows)


@triton.jit
def _common_error(norm, raw, ratio, book_ptr, D: tl.constexpr):
    """The part of the bound that does not depend on how products are made, and |z| max|c| + max|bias|."""
    top = tl.load(book_ptr)
    top_raw = tl.load(book_ptr + 3)
    size = norm * top + tl.load(book_ptr + 2) * ratio
    definition = (raw + top_raw * ratio) * top_raw
    return (D + 32) * 2.4e-7 * size + D * 2.3e-16 * definition, size


@triton.jit
def _fair(norm, ratio):
    """Rows that the approximate kernels may decide: finite, of about the codebook's magnitude."""
    return (norm < 1e30) & (ratio > 1e-15) & (ratio < 1e8)


@triton.jit
def _margin(best, runner_up, scale, ratio, book_ptr, L2: tl.constexpr):
    """In the units of the inputs; inf where the runner-up is padding."""
    unit = (2.0 if L2 else 1.0) / scale / tl.load(book_ptr + 4)
    padding = PAD / 10 * (ratio if L2 else 1.0)
    return tl.where(runner_up > padding, (best - runner_up) * unit, float("inf"))


@triton.jit
def _append(rows, chosen, work_ptr, counter_ptr):
    """Put the chosen rows on the worklist."""
    chosen = chosen.to(tl.int32)
    first = tl.atomic_add(counter_ptr, tl.sum(chosen, 0))
    tl.store(work_ptr + first + tl.cumsum(chosen, 0) - 1, rows, mask=chosen != 0)


@triton.jit(do_not_specialize=["n", "tiles"])
def nearest_half_kernel(
    z_ptr,
    c_ptr,
    bias_ptr,
    row_ptr,
    book_ptr,
    ids_ptr,
    margins_ptr,
    work_ptr,
    counter_ptr,
    n,
    tiles,
    D: tl.constexpr,
    DP: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BD: tl.constexpr,
    TILE_BITS: tl.constexpr,
    L2: tl.constexpr,
    EXACT: tl.constexpr,
    MARGINS: tl.constexpr,
):
    """One float16 product of BN rows with all codewords, BK at a time; each lane keeps its best two scores.

    A score's lowest bits hold the number of its tile, so that the best two and their places are two numbers.
    """
    rows = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)
    inside = rows < n
    lane = tl.arange(0, BK)
    d = tl.arange(0, BD)
    z_ptrs = z_ptr + tl.where(inside, rows, 0)[:, None] * DP + d[None, :]
    c_ptrs = c_ptr + lane[None, :] * DP + d[:, None]
    scale = tl.load(row_ptr + 4 * tl.cast(n, tl.int64) + rows, mask=inside, other=1.0)
    ratio = scale / tl.load(book_ptr + 4)
    if BD == DP:
        z = tl.load(z_ptrs)
    first = tl.full([BN, BK], LOWEST, tl.float32)
    second = tl.full([BN, BK], LOWEST, tl.float32)
    LOW: tl.constexpr = (1 << TILE_BITS) - 1
    for tile in range(tiles):
        # K and D are far below 2^31 together: a codebook is megabytes.
        if BD == DP:
            s = tl.dot(z, tl.load(c_ptrs + tile * BK * DP))
        else:
            s = tl.zeros([BN, BK], tl.float32)
            for start in range(0, DP, BD):
                s = tl.dot(tl.load(z_ptrs + start), tl.load(c_ptrs + tile * BK * DP + start), s)
        bias = tl.load(bias_ptr + tile * BK + lane)
        if L2:
            s += bias[None, :] * ratio[:, None]
        else:
            s += bias[None, :]
        key = ((s.to(tl.int32, bitcast=True) & ~LOW) | tile).to(tl.float32, bitcast=True)
        second = tl.maximum(second, tl.minimum(first, key))
        first = tl.maximum(first, key)

    best = tl.max(first, 1)
    winner = tl.argmax(first, 1)
    runner_up = tl.max(tl.maximum(second, tl.where(lane[None, :] == winner[:, None], LOWEST, first)), 1)
    ids = (best.to(tl.int32, bitcast=True) & LOW) * BK + winner
    norm = tl.load(row_ptr + rows, mask=inside, other=1.0)
    err = (LOW + 1) * 1.2e-7 * tl.abs(best)
    if EXACT:
        lost = tl.load(row_ptr + tl.cast(n, tl.int64) + rows, mask=inside, other=0.0)
        raw = tl.load(row_ptr + 3 * tl.cast(n, tl.int64) + rows, mask=inside, other=0.0)
        common, _ = _common_error(norm, raw, ratio, book_ptr, D)
        rounding = lost * tl.load(book_ptr) + (norm + lost) * tl.load(book_ptr + 1)
        err = 1.001 * (err + common + rounding)
    # Zero and its neighbours would lose the tile number where subnormal numbers are flushed.
    sure = (best - runner_up > 2 * err) & (tl.abs(best) > 1e-30) & _fair(norm, ratio)
    tl.store(ids_ptr + rows, ids, mask=inside)
    if MARGINS:
        tl.store(margins_ptr + rows, _margin(best, runner_up, scale, ratio, book_ptr, L2), mask=inside)
    _append(rows, inside & ~sure, work_ptr, counter_ptr)


@triton.jit(do_not_specialize=["n", "tiles"])
def nearest_split_kernel(
    z_ptr,
    mean_ptr,
    c_ptr,
    bias_ptr,
    row_ptr,
    book_ptr,
    ids_ptr,
    margins_ptr,
    from_ptr,
    count_ptr,
    work_ptr,
    counter_ptr,
    n,
    tiles,
    D: tl.constexpr,
    DP: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    BD: tl.constexpr,
    L2: tl.constexpr,
    ALL: tl.constexpr,
    MARGINS: tl.constexpr,
):
    """The rows of a worklist (or all) again, float32 split into two TF32 numbers, three products."""
    count = n
    if not ALL:
        count = tl.load(count_ptr)
    lane = tl.arange(0, BK)
    d = tl.arange(0, BD)
    for block in range(tl.program_id(0), (count + BN - 1) // BN, tl.num_programs(0)):
        i = tl.cast(block, tl.int64) * BN + tl.arange(0, BN)
        inside = i < count
        if ALL:
            rows = tl.where(inside, i, 0)
        else:
            rows = tl.load(from_ptr + i, mask=inside, other=0).to(tl.int64)
        scale = tl.load(row_ptr + 4 * tl.cast(n, tl.int64) + rows)
        ratio = scale / tl.load(book_ptr + 4)
        first = tl.full([BN, BK], LOWEST, tl.float32)
        second = tl.full([BN, BK], LOWEST, tl.float32)
        where = tl.zeros([BN, BK], tl.int32)
        for tile in range(tiles):
            s = tl.zeros([BN, BK], tl.float32)
            for start in range(0, DP, BD):
                z = tl.load(z_ptr + rows[:, None] * D + start + d[None, :], mask=(start + d < D)[None, :], other=0.0)
                if L2:
                    z -= tl.load(mean_ptr + start + d, mask=start + d < D, other=0.0)[None, :]
                c = tl.load(c_ptr + (tile * BK + lane)[None, :] * DP + start + d[:, None])
                s = tl.dot(z * scale[:, None], c, s, input_precision="tf32x3")
            bias = tl.load(bias_ptr + tile * BK + lane)
            if L2:
                s += bias[None, :] * ratio[:, None]
            else:
                s += bias[None, :]
            wins = s > first
            second = tl.maximum(second, tl.minimum(first, s))
            first = tl.where(wins, s, first)
            where = tl.where(wins, tile, where)
        best = tl.max(first, 1)
        winner = tl.argmax(first, 1)
        taken = lane[None, :] == winner[:, None]
        runner_up = tl.max(tl.maximum(second, tl.where(taken, LOWEST, first)), 1)
        ids = tl.sum(tl.where(taken, where, 0), 1) * BK + winner
        norm = tl.load(row_ptr + rows)
        common, size = _common_error(norm, tl.load(row_ptr + 3 * tl.cast(n, tl.int64) + rows), ratio, book_ptr, D)
        # A TF32 number has 11 bits, two of them 22; what the split and the fourth product lose is below
        # 2^-19.
        sure = (best - runner_up > 2.002 * (common + 1.91e-6 * size)) & _fair(norm, ratio)
        tl.store(ids_ptr + rows, ids, mask=inside)
        if MARGINS:
            tl.store(margins_ptr + rows, _margin(best, runner_up, scale, ratio, book_ptr, L2), mask=inside)
        _append(rows, inside & ~sure, work_ptr, counter_ptr)


@triton.jit(do_not_specialize=["n", "k"])
def by_definition_kernel(
    z_ptr,
    ct_ptr,
    ids_ptr,
    margins_ptr,
    from_ptr,
    count_ptr,
    n,
    k,
    D: tl.constexpr,
    BK: tl.constexpr,
    L2: tl.constexpr,
    ALL: tl.constexpr,
    MARGINS: tl.constexpr,
):
    """float64 sums over d = 0, 1, ..., the lowest index among equals; -1 where something is not finite.

    ct is the codebook transposed, (D, K). Products of float32 numbers are exact in float64, so fused
    multiply-add gives the same bits as two operations.
    """
    count = n
    if not ALL:
        count = tl.load(count_ptr)
    for i in range(tl.program_id(0), count, tl.num_programs(0)):
        row = tl.cast(i, tl.int64)
        if not ALL:
            row = tl.load(from_ptr + i).to(tl.int64)
        best = tl.full([], float("-inf"), tl.float64)
        second = tl.full([], float("-inf"), tl.float64)
        winner = tl.full([], -1, tl.int32)
        wrong = tl.full([], 0, tl.int32)
        for start in range(0, k, BK):
            j = start + tl.arange(0, BK)
            s = tl.zeros([BK], tl.float64)
            square = tl.zeros([BK], tl.float64)
            for d in range(D):
                x = tl.load(z_ptr + row * D + d).to(tl.float64)
                c = tl.load(ct_ptr + d * tl.cast(k, tl.int64) + j, mask=j < k, other=0.0).to(tl.float64)
                s += x * c
                if L2:
                    square += c * c
            s = s - 0.5 * square
            # Sums of products of float32 numbers cannot overflow in float64.
            wrong = tl.maximum(wrong, tl.max((~(tl.abs(s) < float("inf"))).to(tl.int32), 0))
            s = tl.where(j < k, s, float("-inf"))
            top = tl.max(s, 0)
            place = tl.min(tl.where(s == top, j, k), 0)
            below = tl.max(tl.where(j == place, float("-inf"), s), 0)
            second = tl.maximum(tl.maximum(second, below), tl.minimum(best, top))
            winner = tl.where(top > best, place, winner)
            best = tl.maximum(best, top)
        tl.store(ids_ptr + row, tl.where(wrong > 0, -1, winner))
        if MARGINS:
            margin = (best - second) * (2.0 if L2 else 1.0)
            tl.store(margins_ptr + row, tl.where(wrong > 0, float("nan"), margin).to(tl.float32))


@triton.jit(do_not_specialize=["n"])
def scores_kernel(
    z_ptr,
    c_ptr,
    ids_ptr,
    scores_ptr,
    n,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    BD: tl.constexpr,
    L2: tl.constexpr,
):
    """The winners' scores in float64: inner products, or negative squared distances; NaN for id -1."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    ids = tl.load(ids_ptr + rows, mask=rows < n, other=-1)
    code = tl.maximum(ids, 0).to(tl.int64)
    total = tl.zeros([BLOCK], tl.float64)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        mask = (rows < n)[:, None] & (d < D)[None, :]
        x = tl.load(z_ptr + rows[:, None] * D + d[None, :], mask=mask, other=0.0).to(tl.float64)
        c = tl.load(c_ptr + code[:, None] * D + d[None, :], mask=mask, other=0.0).to(tl.float64)
        total += tl.sum(-(x - c) * (x - c) if L2 else x * c, 1)
    tl.store(scores_ptr + rows, tl.where(ids < 0, float("nan"), total).to(tl.float32), mask=rows < n)


def empty_codebook(codebook: Tensor, metric: str) -> list[Tensor]:
    return [torch.empty_like(codebook)]


def prepare(codebook: Tensor, metric: str) -> list[Tensor]:
    return [codebook.clone()]


def assign(
    z: Tensor, prepared: Sequence[Tensor], metric: str, details: bool, small: int = SMALL
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return ids (N,) and, with `details`, scores and margins (N,)."""
    n = len(z)
    ids = torch.empty(n, dtype=torch.int32, device=z.device)
    scores, margins = (torch.empty(n if details else 0, device=z.device) for _ in range(2))
    if n:
        with torch.cuda.device_of(z):
            _assign(z, prepared[0], metric == "l2", True, ids, scores, margins, small)
    return (ids, scores, margins) if details else (ids, None, None)


def _assign(
    z: Tensor,
    codebook: Tensor,
    l2: bool,
    exact: bool,
    ids: Tensor,
    scores: Tensor,
    margins: Tensor,
    small: int,
) -> None:
    (n, depth), k = z.shape, len(codebook)
    details = len(scores) > 0
    programs = 8 * torch.cuda.get_device_properties(z.device).multi_processor_count if z.is_cuda else 3
    work = counters = ids
    everything = n * k * depth <= small
    if not everything:
        work, counters = _approximate(z, codebook, l2, exact, ids, margins, programs)
    by_definition_kernel[(min(n, programs),)](
        z,
        codebook.t().contiguous(),
        ids,
        margins,
        work,
        counters,
        n,
        k,
        D=depth,
        BK=min(512, max(16, triton.next_power_of_2(k))),
        L2=l2,
        ALL=everything,
        MARGINS=details,
        num_warps=8,
    )
    if details:
        scores_kernel[(triton.cdiv(n, 32),)](z, codebook, ids, scores, n, D=depth, BLOCK=32, BD=64, L2=l2)


def _approximate(
    z: Tensor, codebook: Tensor, l2: bool, exact: bool, ids: Tensor, margins: Tensor, programs: int
) -> tuple[Tensor, Tensor]:
    """Steps 1 to 3: ids, and the rows that are left with their number."""
    (n, depth), k = z.shape, len(codebook)
    details = len(margins) > 0
    padded, tiling = tile_sizes(depth)
    tiles = triton.cdiv(k, tiling["BK"])
    rows = tiles * tiling["BK"]
    wide = triton.next_power_of_2(padded)

    mean = codebook.mean(dim=0) if l2 else codebook
    # Centring at most doubles the largest element.
    top = codebook.abs().amax() * (2 if l2 else 1)
    book_half = torch.empty(rows, padded, dtype=torch.float16, device=z.device)
    book_full = torch.empty(rows, padded, device=z.device)
    bias, book_stats = torch.empty(rows, device=z.device), torch.empty(5, rows, device=z.device)
    z_half = torch.empty(n, padded, dtype=torch.float16, device=z.device)
    row_stats = torch.empty(5, n, device=z.device)
    block = max(1, 8192 // wide)
    shape = {"D": depth, "WIDE": wide, "DP": padded, "BLOCK": block, "L2": l2}
    prepare_kernel[(triton.cdiv(rows, block),)](
        codebook, mean, top, book_half, book_full, bias, book_stats, k, rows, BOOK=True, **shape
    )
    prepare_kernel[(triton.cdiv(n, block),)](
        z, mean, top, z_half, book_full, bias, row_stats, n, n, BOOK=False, **shape
    )
    book = book_stats.amax(dim=1)

    work = torch.empty(2, n, dtype=torch.int32, device=z.device)
    counters = torch.zeros(2, dtype=torch.int32, device=z.device)
    bits = max(1, (tiles - 1).bit_length())
    # Margins to float32's precision, and very large codebooks, start with the split product.
    half = bits <= 12 and not (details and exact)
    common = (bias, row_stats, book, ids, margins)
    lists = (work[0], counters[0], work[1], counters[1:])
    options = {"D": depth, "DP": padded, "L2": l2, "MARGINS": details}
    if half:
        nearest_half_kernel[(triton.cdiv(n, tiling["BN"]),)](
            z_half, book_half, *common, *lists[:2], n, tiles, TILE_BITS=bits, EXACT=exact, **options, **tiling
        )
    split = SPLIT_TILES | {"BK": min(SPLIT_TILES["BK"], tiling["BK"]), "BD": min(32, padded), "ALL": not half}
    nearest_split_kernel[(min(triton.cdiv(n, split["BN"]), programs),)](
        z, mean, book_full, *common, *lists, n, rows // split["BK"], **options, **split
    )
    return work[1], counters[1:]
