"""The main pass for D <= 256: rows stay on chip (see `lanes` for the method)."""

import triton
import triton.language as tl

from spintok_kernels.assign.triton.common import LOWEST, power_of_two, top_bits
from spintok_kernels.assign.triton.finish import finish_row
from spintok_kernels.assign.triton.lanes import chunk, conclude, fold, shifted

__all__ = ["nearest_kernel"]


@triton.jit(do_not_specialize=["n", "groups", "splits", "k", "tiles"])
def nearest_kernel(
    z_ptr,
    mean_ptr,
    c_ptr,
    bias_ptr,
    book_ptr,
    ids_ptr,
    lanes_ptr,
    limit_ptr,
    list_ptr,
    counts_ptr,
    scratch_ptr,
    codebook_ptr,
    n,
    groups,
    splits,
    k,
    tiles,
    D: tl.constexpr,
    NC: tl.constexpr,
    CW: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    SPLIT: tl.constexpr,
    BITS: tl.constexpr,
    L2: tl.constexpr,
    DETAILS: tl.constexpr,
    STAGES: tl.constexpr,
    SCRATCH: tl.constexpr,
    FUSED: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Assign rows of D <= NC * CW <= 256 columns: a tile of BN rows stays on chip, `groups` tiles of BK codes pass.

    With SPLIT, `splits` programs share the codes of a tile of rows. With SCRATCH, rounded rows pass through a slot of
    global memory (the L2 cache) that belongs to the program, so that tensor cores read them from shared memory in one
    product. With FUSED, the program finishes the open rows of its tile itself, which saves a launch for small problems.
    """
    DP: tl.constexpr = NC * CW
    LOW: tl.constexpr = (1 << BITS) - 1
    one = tl.load(book_ptr + 5)
    lane = tl.arange(0, BK)
    r = tl.arange(0, BN)
    w = tl.arange(0, CW)
    program = tl.program_id(0)
    for item in tl.range(program, tl.cdiv(n, BN) * splits, tl.num_programs(0), disable_licm=True):
        pid = item // splits
        split = item % splits
        rows = pid * BN + r
        inside = rows < n
        # The largest element of the first chunk gives the scale, with room for elements 128 times larger in the other
        # chunks: rows are read once, and only float16 is kept. Rows that need more room are left to the definition.
        x = chunk(z_ptr, mean_ptr, rows, inside, 0, CW, D, L2)
        scale = power_of_two(top_bits(x)) * 0.0625
        x = x * scale[:, None]
        squares = x * x
        slot = scratch_ptr + program * BN * DP + r[:, None] * DP + w[None, :]
        if SCRATCH:
            tl.store(slot, x.to(tl.float16))
        h = (x.to(tl.float16),)
        for i in tl.static_range(1, NC):
            x = chunk(z_ptr, mean_ptr, rows, inside, i * CW, CW, D, L2) * scale[:, None]
            squares += x * x
            if SCRATCH:
                tl.store(slot + i * CW, x.to(tl.float16))
            else:
                h = h + (x.to(tl.float16),)  # type: ignore[assignment]  # noqa: RUF005
        norm = tl.sqrt(tl.sum(squares, 1))
        first = tl.full([BN, 32], LOWEST, tl.float32)
        second = tl.full([BN, 32], LOWEST, tl.float32)
        begin = groups * split // splits
        end = groups * (split + 1) // splits
        if SCRATCH:
            tl.debug_barrier()
            d = tl.arange(0, DP)
            whole = tl.load(scratch_ptr + program * BN * DP + r[:, None] * DP + d[None, :])
            at = c_ptr + lane[None, :] * DP + d[:, None]
            for tile in tl.range(begin, end, num_stages=STAGES):
                s = tl.dot(whole, tl.load(at + tile * BK * DP))
                s = shifted(s, bias_ptr, tile * BK + lane, scale, one, L2)
                first, second = fold(first, second, s, tile * (BK // 32), LOW, BN, BK)
            tl.debug_barrier()
        else:
            at = c_ptr + lane[None, :] * DP + w[:, None]
            for tile in tl.range(begin, end, num_stages=STAGES):
                s = tl.dot(h[0], tl.load(at + tile * BK * DP))
                for i in tl.static_range(1, NC):
                    s = tl.dot(h[i], tl.load(at + tile * BK * DP + i * CW), s)
                s = shifted(s, bias_ptr, tile * BK + lane, scale, one, L2)
                first, second = fold(first, second, s, tile * (BK // 32), LOW, BN, BK)
        conclude(
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
            D,
            BN,
            LOW,
            L2,
            SPLIT,
            DETAILS,
        )
        if FUSED:
            tl.debug_barrier()
            p = tl.arange(0, 2)
            for i in range(tl.load(counts_ptr + pid)):
                entry = tl.load(list_ptr + pid * BN + i)
                fair = entry >= 0
                row = tl.where(fair, entry, -1 - entry)
                finish_row(
                    row,
                    fair,
                    tl.load(limit_ptr + row),
                    p,
                    p,
                    p >= 0,
                    z_ptr,
                    codebook_ptr,
                    book_ptr,
                    ids_ptr,
                    lanes_ptr,
                    lanes_ptr,
                    lanes_ptr,
                    n,
                    k,
                    tiles,
                    1,
                    D,
                    WIDE,
                    LOW,
                    L2,
                    False,
                    False,
                )
            tl.debug_barrier()
