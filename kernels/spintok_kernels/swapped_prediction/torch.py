"""The passes of Sinkhorn and the loss in torch, on row chunks that stay in the CPU's cache."""

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["column_logsumexp", "column_totals", "product", "swap"]

# Scores in a chunk: 1 MB of float32, so that a chunk and one temporary fit into a core's L2 cache.
CHUNK = 1 << 18


def column_logsumexp(scores: Tensor, scale: float) -> Tensor:
    """Return log sum_i exp(scale * scores[v, i, j]), (V, K) float64; no scale overflows."""
    return torch.stack([_column_logsumexp(view, scale) for view in scores])


def _column_logsumexp(scores: Tensor, scale: float) -> Tensor:
    n, k = scores.shape
    top = scores.new_full((k,), -torch.inf)
    total = scores.new_zeros(k, dtype=torch.float64)
    for rows in _row_chunks(n, k):
        part = scores[rows]
        new_top = torch.maximum(top, part.amax(0) * scale)
        terms = torch.add(-new_top, part, alpha=scale).exp_()
        total = total * torch.exp((top - new_top).double()) + terms.sum(0)
        top = new_top
    return top + torch.log(total)


def column_totals(scores: Tensor, scale: float, u: Tensor) -> Tensor:
    """Return S_j = sum_i softmax_j(scale * scores[v, i] + u[v]), (V, K) float64."""
    views, n, k = scores.shape
    totals = scores.new_zeros((views, k), dtype=torch.float64)
    u = u.to(scores.dtype)
    for view in range(views):
        for rows in _row_chunks(n, k):
            totals[view] += _targets(scores[view, rows], scale, u[view]).sum(0)
    return totals


def swap(
    scores: Tensor, scale: float, u: Tensor, temperature: float, grad: bool, metrics: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sum the loss over a block of both views; with `grad`, overwrite `scores` by P - Q of the other view.

    Args:
        scores: (2, n, K).
        scale: 1 / epsilon.
        u: (2, K), the potentials of the codewords.
        temperature: the temperature of the softmax P.
        grad: whether to write P - Q over `scores`.
        metrics: whether to compute the last three results, which are 0 otherwise.

    Returns:
        Four float64 tensors: the sum of the cross-entropies over rows and views, (); the column sums of P, (2, K); the
        counts of the highest scores, (2, K); the number of rows whose highest score is at the same codeword in both
        views, ().
    """
    _, n, k = scores.shape
    u = u.to(scores.dtype)
    inverse = 1.0 / temperature
    loss, same = scores.new_zeros(2, dtype=torch.float64)
    predictions, counts = scores.new_zeros((2, 2, k), dtype=torch.float64)
    for rows in _row_chunks(n, k):
        views = scores[:, rows]
        q = [_targets(views[v], scale, u[v]) for v in (0, 1)]
        codes = []
        for v in (0, 1):
            if metrics:
                codes.append(views[v].argmax(1))
            # With the row's maximum subtracted both terms of the cross-entropy are >= 0: log sum_j exp(x_j) with
            # max x = 0, which is -log of the highest probability, and -sum_j q_j x_j.
            x = torch.sub(views[v], views[v].amax(1, keepdim=True), out=views[v])
            x *= inverse
            p = torch.softmax(x, 1)
            loss -= p.amax(1).log_().sum() + torch.dot(q[1 - v].view(-1), x.view(-1))
            if metrics:
                predictions[v] += p.sum(0)
            if grad:
                torch.sub(p, q[1 - v], out=x)
        if metrics:
            counts += torch.stack([torch.bincount(c, minlength=k) for c in codes])
            same += (codes[0] == codes[1]).sum()
    return loss, predictions, counts, same


def product(out: Tensor, a: Tensor, b: Tensor, scale: Tensor, add: bool) -> None:
    """Write scale * a @ b to `out`, or add it with `add`."""
    torch.addmm(out, a, b, beta=int(add), alpha=float(scale), out=out)


def _row_chunks(n: int, k: int) -> Iterator[slice]:
    """Split n rows of k scores into slices of about CHUNK scores."""
    step = max(1, CHUNK // k)
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def _targets(scores: Tensor, scale: float, u: Tensor) -> Tensor:
    """Return softmax_j(scale * scores[i] + u), (n, K): the Sinkhorn targets of a chunk of rows."""
    return torch.softmax(torch.add(u, scores, alpha=scale), 1)
