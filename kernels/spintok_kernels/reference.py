"""Every op in float64, written as its formula reads: the definition the compiled code is tested against.

Slow and memory-hungry on purpose. Nothing here is called by the fast paths.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["reference_loss", "reference_metrics", "reference_sinkhorn"]


def reference_sinkhorn(scores: Tensor, epsilon: float, iterations: int = 3) -> Tensor:
    """Smoothed targets Q (N, K) of `scores` (N, K), by the exp form of SwAV (arXiv 2006.09882, appendix A).

    Each iteration gives every codeword the mass 1/K, then every frame the mass 1/N; at the end each row is
    scaled to sum to 1. No gradient flows through Q.
    """
    q = torch.exp(scores.detach().double() / epsilon)
    n, k = q.shape
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(0, keepdim=True) / k
        q = q / q.sum(1, keepdim=True) / n
    return q * n


def reference_loss(
    z1: Tensor,
    z2: Tensor,
    codebook: Tensor,
    *,
    temperature: float = 0.1,
    epsilon: float = 0.02,
    iterations: int = 3,
) -> Tensor:
    """Swapped prediction (Spin, arXiv 2305.11072, equation 4), differentiable, a float64 number.

    z1, z2 (N, D) are the two views, codebook (K, D). Each view predicts the smoothed targets of the other.
    """
    scores1 = z1.double() @ codebook.double().T
    scores2 = z2.double() @ codebook.double().T
    q1 = reference_sinkhorn(scores1, epsilon, iterations)
    q2 = reference_sinkhorn(scores2, epsilon, iterations)
    log_p1 = torch.log_softmax(scores1 / temperature, dim=1)
    log_p2 = torch.log_softmax(scores2 / temperature, dim=1)
    return -0.5 * ((q2 * log_p1).sum(1).mean() + (q1 * log_p2).sum(1).mean())


def reference_metrics(
    z1: Tensor, z2: Tensor, codebook: Tensor, *, temperature: float = 0.1
) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction perplexity (2,), assignment perplexity (2,) and the agreement of the views, in float64.

    Perplexity is exp(H) of the mean prediction, and of the histogram of the nearest codewords; agreement is
    the share of frames whose nearest codeword is the same in both views.
    """
    scores = torch.stack([z1.double() @ codebook.double().T, z2.double() @ codebook.double().T])
    mean_prediction = torch.softmax(scores / temperature, dim=2).mean(1)
    codes = scores.argmax(2)
    usage = torch.nn.functional.one_hot(codes, len(codebook)).double().mean(1)
    agreement = (codes[0] == codes[1]).double().mean()
    return _perplexity(mean_prediction), _perplexity(usage), agreement


def _perplexity(p: Tensor) -> Tensor:
    return torch.exp(torch.special.entr(p).sum(-1))
