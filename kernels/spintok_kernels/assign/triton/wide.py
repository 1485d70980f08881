"""The main pass for any D: rows and codes are streamed (see `lanes` for the method)."""

import triton
import triton.language as tl

from spintok_kernels.assign.triton.common import LOWEST, power_of_two, top_bits
from spintok_kernels.assign.triton.lanes import chunk, conclude, fold, shifted

__all__ = ["nearest_wide_kernel"]


@triton.jit
def _wide_tile(
    acc, first, second, tile, bias_ptr, scale, LOW: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, L2: tl.constexpr
):
    s = shifted(acc, bias_ptr, tile * BK + tl.arange(0, BK), scale, 1.0, L2)
    return fold(first, second, s, tile * (BK // 32), LOW, BN, BK)


@triton.jit(do_not_specialize=["n", "groups", "splits"])
def nearest_wide_kernel(
    z_ptr,
    mean_ptr,
    c_ref,
    bias_ptr,
    book_ptr,
    ids_ptr,
    lanes_ptr,
    limit_ptr,
    list_ptr,
    counts_ptr,
    scratch_ptr,
    n,
    groups,
    splits,
    D: tl.constexpr,
    DP: tl.constexpr,
    BD: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    SPLIT: tl.constexpr,
    BITS: tl.constexpr,
    L2: tl.constexpr,
    DETAILS: tl.constexpr,
    STAGES: tl.constexpr,
    TMA: tl.constexpr,
):
    """Assign rows of any D: a program rounds its rows into its slot of scratch, which fits the L2 cache, and both sides
    are streamed in pieces of BD columns.

    With TMA, c_ref is a tensor descriptor of the codebook. The rows, which this kernel writes itself, must not use TMA.
    """
    LOW: tl.constexpr = (1 << BITS) - 1
    ND: tl.constexpr = DP // BD
    r = tl.arange(0, BN)
    d = tl.arange(0, BD)
    program = tl.program_id(0)
    for item in tl.range(program, tl.cdiv(n, BN) * splits, tl.num_programs(0), disable_licm=True):
        pid = item // splits
        split = item % splits
        rows = pid * BN + r
        inside = rows < n
        slot = scratch_ptr + program * BN * DP + r[:, None] * DP + d[None, :]
        scale = power_of_two(top_bits(chunk(z_ptr, mean_ptr, rows, inside, 0, BD, D, L2))) * 0.0625
        squares = tl.zeros([BN, BD], tl.float32)
        for part in range(ND):
            x = chunk(z_ptr, mean_ptr, rows, inside, part * BD, BD, D, L2) * scale[:, None]
            squares += x * x
            tl.store(slot + part * BD, x.to(tl.float16))
        norm = tl.sqrt(tl.sum(squares, 1))
        tl.debug_barrier()
        first = tl.full([BN, 32], LOWEST, tl.float32)
        second = tl.full([BN, 32], LOWEST, tl.float32)
        begin = groups * split // splits
        end = groups * (split + 1) // splits
        acc = tl.zeros([BN, BK], tl.float32)
        cp = c_ref
        if not TMA:
            cp = c_ref + tl.arange(0, BK)[None, :] * DP + d[:, None]
        for it in tl.range(0, (end - begin) * ND, num_stages=STAGES):
            part = it % ND
            tile = begin + it // ND
            a = tl.load(slot + part * BD)
            if TMA:
                acc = tl.dot(a, c_ref.load([tile * BK, part * BD]).T, acc)
            else:
                acc = tl.dot(a, tl.load(cp + tile * BK * DP + part * BD), acc)
            if part == ND - 1:
                first, second = _wide_tile(acc, first, second, tile, bias_ptr, scale, LOW, BN, BK, L2)
                acc = tl.zeros([BN, BK], tl.float32)
        tl.debug_barrier()
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
