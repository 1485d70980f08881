"""What comes before and after the passes: rounding the inputs, metrics, the loss, scaling the gradients."""

import triton
import triton.language as tl

__all__ = ["cast_kernel", "entropy_kernel", "final_kernel", "scale_kernel"]


@triton.jit(do_not_specialize=["n"])
def cast_kernel(z1, z2, c, zh, ch, n, K: tl.constexpr, D: tl.constexpr, LD: tl.constexpr, BLOCK: tl.constexpr):
    """Round both views to zh (2, n, D) and the codebook to ch (LD, D), float16; rows of ch from K are zero."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    which = tl.program_id(1)
    size = n.to(tl.int64) * D
    if which == 0:
        tl.store(zh + at, tl.load(z1 + at, at < size, other=0).to(tl.float16), at < size)
    elif which == 1:
        tl.store(zh + size + at, tl.load(z2 + at, at < size, other=0).to(tl.float16), at < size)
    else:
        tl.store(ch + at, tl.load(c + at, at < K * D, other=0).to(tl.float16), at < LD * D)


@triton.jit
def entropy_kernel(
    parts, counts, entropies, programs, n, K: tl.constexpr, LD: tl.constexpr, BK: tl.constexpr, GP: tl.constexpr
):
    """Write to entropies (4, blocks), in nats: of the views' mean predictions and histograms, by blocks of codes."""
    block, blocks, view = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    columns = block * BK + tl.arange(0, BK)
    g = tl.arange(0, GP)
    mask = (g < programs)[:, None] & (columns < K)[None, :]
    p = tl.sum(tl.load(parts + (view * programs + g)[:, None] * LD + columns[None, :], mask, other=0).to(tl.float64), 0)
    p = p / n
    q = tl.load(counts + view * LD + columns, columns < K, other=0).to(tl.float64) / n
    tl.store(entropies + view * blocks + block, tl.sum(tl.where(p > 0, -p * tl.log(p), 0), 0))
    tl.store(entropies + (2 + view) * blocks + block, tl.sum(tl.where(q > 0, -q * tl.log(q), 0), 0))


@triton.jit
def final_kernel(
    losses,
    agreements,
    entropies,
    loss_out,
    watched,
    factor,
    programs,
    blocks,
    n,
    temperature,
    GP: tl.constexpr,
    EP: tl.constexpr,
    METRICS: tl.constexpr,
):
    """Write the loss, with METRICS four perplexities and the agreement, and the factor of the gradients."""
    g = tl.arange(0, GP)
    loss = tl.sum(tl.load(losses + g, g < programs, other=0).to(tl.float64), 0) * 0.6931471805599453 / (2 * n)
    tl.store(loss_out, loss.to(tl.float32))
    tl.store(factor, 1 / (2 * n * temperature))
    if METRICS:
        # Counts are always finite: make the metrics NaN where the loss is.
        wrong = (0 * loss).to(tl.float32)
        e = tl.arange(0, EP)
        for i in tl.static_range(4):
            entropy = tl.sum(tl.load(entropies + i * blocks + e, e < blocks, other=0), 0)
            tl.store(watched + i, tl.exp(entropy).to(tl.float32) + wrong)
        same = tl.sum(tl.load(agreements + g, g < programs, other=0).to(tl.float64), 0) / n
        tl.store(watched + 4, same.to(tl.float32) + wrong)


@triton.jit
def scale_kernel(dz, dc, z_out, c_out, grad, factor, size, small, BLOCK: tl.constexpr):
    """Write dz (size,) and dc (small,) times grad * factor to z_out and c_out."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    g = tl.load(grad) * tl.load(factor)
    if tl.program_id(1) == 0:
        tl.store(z_out + at, tl.load(dz + at, at < size, other=0) * g, at < size)
    else:
        tl.store(c_out + at, tl.load(dc + at, at < small, other=0) * g, at < small)
