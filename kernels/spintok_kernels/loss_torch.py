"""The last pass of the swapped-prediction loss on the CPU, on row chunks that stay in cache."""

import torch
from torch import Tensor

from spintok_kernels.sinkhorn_torch import row_chunks, targets

__all__ = ["product", "swap"]


def product(out: Tensor, a: Tensor, b: Tensor, scale: Tensor, add: bool) -> None:
    """out <- scale * a @ b, on top of what it holds with `add`."""
    torch.addmm(out, a, b, beta=int(add), alpha=float(scale), out=out)


def swap(
    scores: Tensor, scale: float, u: Tensor, temperature: float, grad: bool, metrics: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Summed loss of a block of both views; with `grad`, P - Q of the other view overwrites `scores`.

    Args:
        scores: (2, n, K). scale: 1 / epsilon. u: (2, K) code potentials.

    Returns:
        float64 each: the sum over rows and views of the cross-entropies (), the column sums of P (2, K), the
        counts of the highest scores (2, K), the number of rows where both views have the same (); the last
        three stay 0 without `metrics`.
    """
    _, n, k = scores.shape
    u = u.to(scores.dtype)
    inverse = 1.0 / temperature
    loss, same = scores.new_zeros(2, dtype=torch.float64)
    predictions, counts = scores.new_zeros((2, 2, k), dtype=torch.float64)
    for rows in row_chunks(n, k):
        views = scores[:, rows]
        q = [targets(views[v], scale, u[v]) for v in (0, 1)]
        codes = []
        for v in (0, 1):
            if metrics:
                codes.append(views[v].argmax(1))
            # Below the row's maximum both terms of the cross-entropy are >= 0:
            # log sum_j exp(x_j) with max x = 0, which is -log of the highest probability, and -sum_j q_j x_j.
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
