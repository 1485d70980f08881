"""Exact assignment in torch, for machines without the compiled core and for comparison with it.

It uses the method of assign.cpp on chunks of rows: a float32 matrix product, a bound on its error, and the float64
definition for the codewords that the bound does not exclude.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["assign", "empty_codebook", "prepare"]

# Rows of a chunk: with fewer the matrix product is slow on several threads, with more the scores leave the cache.
CHUNK_ROWS = 1024
# Candidates decided at once: bounds the memory that many ties (a collapsed codebook) need.
CHUNK_CANDIDATES = 1 << 14


def empty_codebook(codebook: Tensor) -> list[Tensor]:
    """Return uninitialised tensors for `prepare`: codebook, centred codebook, float32 biases, mean and bounds."""
    k, depth = codebook.shape
    return [
        codebook.new_empty(k, depth),
        codebook.new_empty(k, depth),
        codebook.new_empty(k),
        codebook.new_empty(depth),
        codebook.new_empty(4, dtype=torch.float64),
    ]


def prepare(codebook: Tensor, metric: str) -> list[Tensor]:
    """Centre a codebook and compute its bounds. ValueError if a codeword is not finite."""
    if not bool(codebook.isfinite().all()):
        raise ValueError("codebook: a codeword is not finite")
    codebook = codebook.clone()
    # For L2, subtracting the mean from both sides leaves the argmin and makes the error smaller, see assign.cpp.
    mean = codebook.double().mean(dim=0).float() if metric == "l2" else torch.zeros(codebook.shape[1])
    centred = codebook - mean if metric == "l2" else codebook.clone()
    norms = _norms(centred)
    bias = -0.5 * norms.square() if metric == "l2" else torch.zeros_like(norms)
    bounds = torch.stack([norms.max(), bias.abs().max(), _norms(codebook).max(), _norms(mean)])
    return [codebook, centred, bias.float(), mean, bounds]


def assign(
    z: Tensor, prepared: Sequence[Tensor], metric: str, details: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return ids (N,) and, with `details`, scores and margins (N,). Arguments are not checked."""
    l2 = metric == "l2"
    n, depth = z.shape
    codebook, centred, bias, mean, bounds = prepared
    max_norm, max_bias, raw_norm, mean_norm = bounds.tolist()
    ids = torch.empty(n, dtype=torch.int32)
    scores, margins = torch.empty(n if details else 0), torch.empty(n)

    rows = max(1, min(n, CHUNK_ROWS))
    products = torch.empty(rows, len(codebook))
    for start in range(0, n, rows):
        part = z[start : start + rows]
        shifted = part - mean if l2 else part
        out = products[: len(part)]
        _multiply(shifted, centred, bias if l2 else None, out)
        best, first = out.max(dim=1)

        sizes = _norms(shifted)
        size = sizes * max_norm + max_bias
        raw = (sizes + mean_norm + raw_norm) * raw_norm
        err = 1.0001 * (_gamma(depth + 8, 24) * size + (depth + 8) * 2.0**-149 + _gamma(depth + 8, 53) * raw)
        finite = torch.linalg.vector_norm(part, torch.inf, dim=1).isfinite()
        # Sums that may overflow exclude nothing.
        sound = (size < 1e37) & (err < 1e37)
        threshold = (best.double() - 2 * err).where(sound, -math.inf)

        ours = slice(start, start + len(part))
        out.scatter_(1, first[:, None], -math.inf)
        second = out.amax(dim=1)
        # All scores of a zero row are equal. Padding makes such rows common.
        empty = (sizes == 0) & (not l2)
        first = first.where(~empty, 0)
        close = finite & ~empty & ~(second.double() < threshold)
        out.scatter_(1, first[:, None], best[:, None])
        ids[ours] = first.int()
        margins[ours] = best - second
        if bool(close.any()):
            _decide(part, codebook, l2, out, threshold, close.nonzero().squeeze(1), ids[ours], margins[ours])
        ids[ours] = ids[ours].where(finite, -1)
        if details:
            winners = codebook[ids[ours].clamp(min=0)].double()
            exact = -(part.double() - winners).square().sum(1) if l2 else (part.double() * winners).sum(1)
            scores[ours] = exact.float().where(finite, math.nan)
            margins[ours] = (2 * margins[ours] if l2 else margins[ours]).where(finite, math.nan)
    return (ids, scores, margins) if details else (ids, None, None)


def _norms(x: Tensor) -> Tensor:
    """Norms in float64, as the squares of float32 numbers may overflow float32."""
    norms: Tensor = torch.linalg.vector_norm(x, dim=-1, dtype=torch.float64)
    return norms


def _multiply(z: Tensor, codebook: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """Write z codebook^T (+ bias) to `out` in true float32, whatever torch.set_float32_matmul_precision is."""
    allowed = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        if bias is None:
            torch.mm(z, codebook.t(), out=out)
        else:
            torch.addmm(bias, z, codebook.t(), out=out)
    finally:
        torch.set_float32_matmul_precision(allowed)


def _gamma(n: int, bits: int) -> float:
    """Return n u / (1 - n u), the relative error of a sum of n terms with unit roundoff u = 2^-bits."""
    x = n * 2.0**-bits
    return x / (1 - x) if x < 0.5 else math.inf


def _decide(
    z: Tensor,
    codebook: Tensor,
    l2: bool,
    approximate: Tensor,
    threshold: Tensor,
    close: Tensor,
    ids: Tensor,
    margins: Tensor,
) -> None:
    """Write ids and margins of the rows `close` by the definition, over every codeword that may win."""
    # Written as "not below", so that NaN (overflow) stays a candidate.
    pairs = (~(approximate[close].double() < threshold[close, None])).nonzero()
    exact = torch.empty(len(pairs), dtype=torch.float64)
    for start in range(0, len(pairs), CHUNK_CANDIDATES):
        chunk = pairs[start : start + CHUNK_CANDIDATES]
        c = codebook[chunk[:, 1]].double()
        # Unlike a plain sum, a running sum has the order of the definition.
        exact[start : start + len(chunk)] = (z[close[chunk[:, 0]]].double() * c).cumsum(1)[:, -1]
        if l2:
            exact[start : start + len(chunk)] -= 0.5 * (c * c).cumsum(1)[:, -1]
    best = torch.full((len(close),), -math.inf, dtype=torch.float64)
    best.scatter_reduce_(0, pairs[:, 0], exact, "amax")
    winners = torch.full((len(close),), len(codebook))
    ties = exact == best[pairs[:, 0]]
    winners.scatter_reduce_(0, pairs[ties, 0], pairs[ties, 1], "amin")
    others = pairs[:, 1] != winners[pairs[:, 0]]
    second = torch.full_like(best, -math.inf)
    second.scatter_reduce_(0, pairs[others, 0], exact[others], "amax")
    ids[close] = winners.int()
    margins[close] = (best - second).float()
