"""The passes of Sinkhorn over scores (V, n, K) on the CPU, on row chunks that stay in cache."""

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["column_logsumexp", "column_totals", "row_chunks", "row_logsumexp", "targets"]

# Scores a chunk: 1 MB of float32, so that a chunk and its one temporary stay in a core's second-level cache.
CHUNK = 1 << 18


def row_chunks(n: int, k: int) -> Iterator[slice]:
    """Cut n rows of k scores into slices of about CHUNK scores."""
    step = max(1, CHUNK // k)
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def column_logsumexp(scores: Tensor, scale: float) -> Tensor:
    """log sum_i exp(scale * scores[v, i, j]) -> (V, K), float64; no scale overflows."""
    return torch.stack([_column_logsumexp(view, scale) for view in scores])


def _column_logsumexp(scores: Tensor, scale: float) -> Tensor:
    n, k = scores.shape
    top = scores.new_full((k,), -torch.inf)
    total = scores.new_zeros(k, dtype=torch.float64)
    for rows in row_chunks(n, k):
        part = scores[rows]
        new_top = torch.maximum(top, part.amax(0) * scale)
        terms = torch.add(-new_top, part, alpha=scale).exp_()
        total = total * torch.exp((top - new_top).double()) + terms.sum(0)
        top = new_top
    return top + torch.log(total)


def column_totals(scores: Tensor, scale: float, u: Tensor) -> Tensor:
    """S_j = sum_i softmax_j(scale * scores[v, i] + u[v]) -> (V, K), float64."""
    views, n, k = scores.shape
    totals = scores.new_zeros((views, k), dtype=torch.float64)
    u = u.to(scores.dtype)
    for view in range(views):
        for rows in row_chunks(n, k):
            totals[view] += targets(scores[view, rows], scale, u[view]).sum(0)
    return totals


def row_logsumexp(scores: Tensor, scale: float, u: Tensor) -> Tensor:
    """log sum_j exp(scale * scores[v, i, j] + u[v, j]) -> (V, n), in the dtype of `scores`."""
    views, n, k = scores.shape
    out = scores.new_empty((views, n))
    u = u.to(scores.dtype)
    for view in range(views):
        for rows in row_chunks(n, k):
            torch.logsumexp(torch.add(u[view], scores[view, rows], alpha=scale), 1, out=out[view, rows])
    return out


def targets(scores: Tensor, scale: float, u: Tensor) -> Tensor:
    """softmax_j(scale * scores[i] + u), (n, K): a row chunk of Sinkhorn's targets."""
    return torch.softmax(torch.add(u, scores, alpha=scale), 1)
