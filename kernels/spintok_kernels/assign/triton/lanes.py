"""The main pass of assignment: one float16 product decides most rows and names the candidates of the others.

Every row has 32 lanes (the code number modulo 32), and each lane keeps its best two scores, whose low bits hold the
number of the group of 32 codes. Every code that may be the answer is known from these 64 numbers: it is the first or
the second of its lane, or the second of its lane may be the answer too. A row with one candidate is decided; any other
leaves its 64 numbers to `finish_kernel`.

Units: score_ij = b s_i (z_i - m).(c_j - m), for L2 less b s_i |c_j - m|^2 / 2, where s_i and b are powers of two; |z|
and |c| below are scaled. h marks rounded copies, and maxima are over codewords (Cauchy-Schwarz on z.c - zh.ch =
(z - zh).c + zh.(c - ch)):

    err = |z - zh| max|c| + |zh| max|c - ch|                              rounding to float16
        + (D + 32) 2^-22 (|z| max|c| + max|bias|)                         float32 sums, truncating
        + 2^(BITS - 23) |best|                                            group numbers in low bits
        + D 2^-52 (|z| + 2 s_i max|c_raw|) max|c_raw|                     the rounding of the float64 definition

The candidates of a row are all codes whose computed score is at least best - 2 err.
"""

import triton
import triton.language as tl

from spintok_kernels.assign.triton.common import LOWEST, bits_of

__all__ = ["chunk", "conclude", "fold", "shifted"]


@triton.jit
def chunk(z_ptr, mean_ptr, rows, inside, start, CW: tl.constexpr, D: tl.constexpr, L2: tl.constexpr):
    """Load CW columns of rows from `start`, centred for L2."""
    d = start + tl.arange(0, CW)
    if D % CW == 0:
        x = tl.load(z_ptr + rows[:, None] * D + d[None, :], mask=inside[:, None], other=0.0)
        if L2:
            x = x - tl.load(mean_ptr + d)[None, :]
    else:
        x = tl.load(z_ptr + rows[:, None] * D + d[None, :], mask=inside[:, None] & (d < D)[None, :], other=0.0)
        if L2:
            x = x - tl.load(mean_ptr + d, mask=d < D, other=0.0)[None, :]
    return x


@triton.jit
def shifted(s, bias_ptr, columns, scale, one, L2: tl.constexpr):
    """Add the bias to a product.

    `one` is 1, which must be unknown to the compiler: it would start the product from the bias, and marking a score
    with its group would then take two instructions instead of one (seen in the machine code of Triton 3.6 and 3.7).
    """
    bias = tl.load(bias_ptr + columns)
    if L2:
        return s * one + bias[None, :] * scale[:, None]
    else:  # noqa: RET505
        return s * one + bias[None, :]


@triton.jit
def _update(first, second, s, number, LOW: tl.constexpr):
    """Update the best two scores of each lane by scores of group `number`."""
    key = ((bits_of(s) & ~LOW) | number).to(tl.float32, bitcast=True)
    second = tl.maximum(second, tl.minimum(first, key))
    return tl.maximum(first, key), second


@triton.jit
def fold(first, second, s, number, LOW: tl.constexpr, BN: tl.constexpr, WIDTH: tl.constexpr):
    """Merge WIDTH columns of scores into the 32 lanes; `number` is the number of their first group of 32."""
    if WIDTH == 32:
        first, second = _update(first, second, s, number, LOW)
    else:
        a, b = tl.split(tl.permute(tl.reshape(s, [BN, 2, WIDTH // 2]), [0, 2, 1]))
        first, second = fold(first, second, a, number, LOW, BN, WIDTH // 2)
        first, second = fold(first, second, b, number + WIDTH // 64, LOW, BN, WIDTH // 2)
    return first, second


@triton.jit
def conclude(
    first,
    second,
    norm,
    scale,
    book_ptr,
    ids_ptr,
    lanes_ptr,
    limit_ptr,
    list_ptr,
    counts_ptr,
    rows,
    pid,
    split,
    n,
    D: tl.constexpr,
    BN: tl.constexpr,
    LOW: tl.constexpr,
    L2: tl.constexpr,
    SPLIT: tl.constexpr,
    DETAILS: tl.constexpr,
):
    """Write the ids of decided rows, and what `finish_kernel` needs of the others."""
    lane = tl.arange(0, 32)
    inside = rows < n
    top = tl.load(book_ptr)
    residue = tl.load(book_ptr + 1)
    largest = tl.load(book_ptr + 2)
    raw = tl.load(book_ptr + 3)
    best = tl.max(first, 1)
    winner = tl.argmax(first, 1)
    size = norm * top
    ceiling = 1e28
    if L2:
        size += largest * scale
        ceiling = 1e28 * tl.minimum(scale, 1.0)
    # Rounding loses at most 2^-11 of a normal element and 2^-25 of a subnormal one.
    lost = 4.8829e-4 * norm + 3e-8 * D
    err = lost * top + (norm + lost) * residue + (D + 32) * 2.4e-7 * size + (LOW + 1) * 1.2e-7 * tl.abs(best)
    # The rounding of the definition: |z| <= |z - m| + |m| and |m| <= max|c|.
    definition = norm
    if L2:
        definition += 2 * scale * raw * tl.load(book_ptr + 4)
    err = 1.001 * (err + D * 2.3e-16 * definition * raw)
    if DETAILS:
        # A margin needs the best two codes: every code that may be the second is a candidate too.
        others = tl.maximum(second, tl.where(lane[None, :] == winner[:, None], LOWEST, first))
        lowest = scale * 0.0 - 1e29
        if L2:
            lowest = tl.minimum(scale, 1.0) * -1e29
        limit = tl.maximum(tl.max(others, 1) - 2 * err, lowest)
    else:
        limit = best - 2 * err
    # The bound holds: float16 did not overflow, padding cannot win, and low bits are not flushed to zero.
    fair = (norm < 60000.0) & (scale < 1e20) & (size < ceiling) & (err < 1e28) & (tl.abs(best) > 1e-28)
    code = (bits_of(best) & LOW) * 32 + winner
    near = tl.sum((first >= limit[:, None]).to(tl.int32), 1)
    alone = (near == 1) & (tl.max(second, 1) < limit) & fair
    if SPLIT:
        # Every row is merged: store its best code here, -1 if others are near, -2 if the bound does not hold.
        at = split * n + rows
        tl.store(list_ptr + at, tl.where(alone, code, tl.where(fair, -1, -2)), mask=inside)
        tl.store(limit_ptr + 2 * at, best, mask=inside)
        tl.store(limit_ptr + 2 * at + 1, 2 * err, mask=inside)
        keep = inside & fair & ~alone
    else:
        at = rows
        if DETAILS:
            alone = alone & (rows < 0)
        tl.store(ids_ptr + rows, code, mask=inside & alone)
        left = inside & ~alone
        number = left.to(tl.int32)
        tl.store(limit_ptr + rows, limit, mask=left)
        tl.store(list_ptr + pid * BN + tl.cumsum(number, 0) - 1, tl.where(fair, rows, -1 - rows), mask=left)
        tl.store(counts_ptr + pid, tl.sum(number, 0))
        keep = left & fair
    base = lanes_ptr + at.to(tl.int64)[:, None] * 64 + lane[None, :]
    tl.store(base, first, mask=keep[:, None])
    tl.store(base + 32, second, mask=keep[:, None])
