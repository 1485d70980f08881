"""Spin's loss for frames of two views, from the formulas, in float64: the oracle of the training tests.

Scores s = z C^T of unit vectors; targets by Sinkhorn-Knopp on exp(s / epsilon), alternately scaling columns and rows to
equal totals; each view predicts the other's targets through softmax(s / temperature).
"""

from torch import Tensor


def unit(x: Tensor) -> Tensor:
    return x / x.square().sum(-1, keepdim=True).sqrt()


def targets(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """(N, K): rows sum to 1."""
    matrix = (scores / epsilon).exp()
    for _ in range(iterations):
        matrix = matrix / matrix.sum(0)
        matrix = matrix / matrix.sum(1, keepdim=True)
    return matrix


def swapped_loss(
    frames: tuple[Tensor, Tensor],
    weight: Tensor,
    bias: Tensor,
    codewords: Tensor,
    temperature: float = 0.1,
    epsilon: float = 0.02,
    iterations: int = 3,
    through_targets: bool = False,
) -> Tensor:
    """The loss of frames (N, D) of two views under a projection and codewords (K, E).

    With ``through_targets`` its gradient is wrong: it flows through the targets too.
    """
    scores = [unit(x @ weight.T + bias) @ unit(codewords).T for x in frames]
    q1, q2 = (targets(s if through_targets else s.detach(), epsilon, iterations) for s in scores)
    log_p1, log_p2 = ((s / temperature).log_softmax(1) for s in scores)
    return -((q2 * log_p1).sum(1).mean() + (q1 * log_p2).sum(1).mean()) / 2
