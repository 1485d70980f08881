"""Pieces that the assignment kernels share."""

import triton
import triton.language as tl

__all__ = ["INF_BITS", "LOWEST", "PAD", "bits_of", "inverse", "power_of_two", "top_bits"]

LOWEST = tl.constexpr(-3e38)
"""Below every score, and finite."""
PAD = tl.constexpr(-1e30)
"""The bias of padding, below every score of a row that float16 can represent."""
INF_BITS = tl.constexpr(0x7F800000)


@triton.jit
def bits_of(x):
    return x.to(tl.int32, bitcast=True)


@triton.jit
def power_of_two(magnitude_bits):
    """Return 2^(12 - exponent) of a magnitude given as bits: it scales the magnitude into [4096, 8192).

    Returns 1 for 0; the result is limited to 2^+-100.
    """
    exponent = (magnitude_bits >> 23) & 255
    field = tl.where(magnitude_bits == 0, 127, tl.minimum(tl.maximum(266 - exponent, 27), 227))
    return (field << 23).to(tl.float32, bitcast=True)


@triton.jit
def inverse(scale):
    """Return 1 / scale of a power of two, exactly."""
    return ((254 << 23) - bits_of(scale)).to(tl.float32, bitcast=True)


@triton.jit
def top_bits(x):
    """Return the largest magnitude of each row as bits; NaN counts as larger than infinity."""
    return tl.max(bits_of(x) & 0x7FFFFFFF, 1)
