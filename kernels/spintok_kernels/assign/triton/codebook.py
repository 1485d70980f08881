"""Round a codebook to float16 and measure what that loses."""

import triton
import triton.language as tl

from spintok_kernels.assign.triton.common import INF_BITS, PAD, bits_of, inverse, power_of_two, top_bits

__all__ = ["prepare_kernel"]


@triton.jit
def prepare_kernel(
    c_ptr,
    mean_ptr,
    top_ptr,
    half_ptr,
    bias_ptr,
    part_ptr,
    k,
    rows,
    D: tl.constexpr,
    DP: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    L2: tl.constexpr,
):
    """Round a codebook (k, D) to half (rows, DP): the score of a row is zh . half + bias [for L2: * the row's scale].

    part (6, programs) are the maxima of |c|, |c - half|, |bias| and |c| before centring, all times the scale b of the
    codebook, then 1 / b and 1. The first is infinite if a codeword is not finite. Rows from k are padding: zeros with a
    bias that never wins.
    """
    pid = tl.program_id(0)
    programs = tl.num_programs(0)
    r = pid * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, WIDE)
    raw = tl.load(c_ptr + r[:, None] * D + d[None, :], mask=(r < k)[:, None] & (d < D)[None, :], other=0.0)
    x = raw
    if L2:
        mean = tl.load(mean_ptr + d, mask=d < D, other=0.0)
        x = tl.where((r < k)[:, None], x - mean[None, :], 0.0)
    b = power_of_two(bits_of(tl.load(top_ptr)) & 0x7FFFFFFF)
    unscale = inverse(b)
    x = x * b
    half = x.to(tl.float16)
    lost = x - half.to(tl.float32)
    square = tl.sum(x * x, 1)
    bias = tl.zeros([BLOCK], tl.float32)
    if L2:
        bias = -0.5 * square * unscale
    tl.store(half_ptr + r[:, None] * DP + d[None, :], half, mask=(r < rows)[:, None] & (d < DP)[None, :])
    tl.store(bias_ptr + r, tl.where(r < k, bias, PAD), mask=r < rows)
    wrong = tl.where(tl.max(top_bits(raw), 0) >= INF_BITS, float("inf"), 0.0)
    tl.store(part_ptr + pid, tl.maximum(tl.max(tl.sqrt(square), 0), wrong))
    tl.store(part_ptr + programs + pid, tl.max(tl.sqrt(tl.sum(lost * lost, 1)), 0))
    tl.store(part_ptr + 2 * programs + pid, tl.max(-bias, 0))
    tl.store(part_ptr + 3 * programs + pid, tl.max(tl.sqrt(tl.sum(raw * b * raw * b, 1)), 0))
    tl.store(part_ptr + 4 * programs + pid, unscale)
    tl.store(part_ptr + 5 * programs + pid, 1.0)
