"""Sinkhorn-Knopp in log space: two vectors of potentials in place of the (N, K) targets.

With targets Q_ij = exp(s_ij / epsilon + u_j + v_i), one iteration equalises the totals of the codewords,
u_j = -log sum_i exp(s_ij / epsilon + v_i), and then those of the frames, v_i = -log sum_j exp(s_ij / epsilon + u_j).
The factors 1/K and 1/N of the form in SwAV (arXiv 2006.09882) cancel. After the first iteration v is not needed: with
S_j the column sums of the row-normalised Q, u_j <- u_j - log S_j is the same update. Since 1/K <= S_j <= N, nothing
overflows and nothing is divided by zero at any epsilon. The ranks of a process group exchange only K column totals.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from spintok_kernels.swapped_prediction.ranks import max_over_ranks, sum_over_ranks

__all__ = ["Blocks", "Passes", "code_potentials"]

Blocks = Callable[[], Iterable[tuple[slice, Tensor]]]
"""Each call iterates over all blocks of rows and their scores (V, n, K); there is one block if all are stored."""


class Passes(NamedTuple):
    """One device's passes over a block of scores (V, n, K). `scale` is 1 / epsilon, u is (V, K)."""

    column_logsumexp: Callable[[Tensor, float], Tensor]
    """(scores, scale) -> log sum_i exp(scale * s_ij), (V, K) float64."""
    column_totals: Callable[[Tensor, float, Tensor], Tensor]
    """(scores, scale, u) -> sum_i softmax_j(scale * s_ij + u_j), (V, K) float64."""


def code_potentials(
    blocks: Blocks, passes: Passes, rows: int, *, epsilon: float, iterations: int, group: str
) -> tuple[Tensor, Tensor]:
    """Return the potentials u (V, K) of the codewords, float64, and the row count of all ranks, a float64 tensor.

    `rows` is the row count of this rank. The scores are read `iterations` times.
    """
    scale = 1.0 / epsilon
    logsum: Tensor | None = None
    for _, scores in blocks():
        part = passes.column_logsumexp(scores, scale)
        logsum = part if logsum is None else torch.logaddexp(logsum, part)
    assert logsum is not None
    top = max_over_ranks(logsum.clone(), group)
    # One collective for the totals and the row count, which float64 holds exactly.
    shared = sum_over_ranks(torch.cat([torch.exp(logsum - top).flatten(), logsum.new_tensor([rows])]), group)
    u = -(top + torch.log(shared[:-1].view_as(top)))
    for _ in range(iterations - 1):
        totals = torch.zeros_like(u)
        for _, scores in blocks():
            totals += passes.column_totals(scores, scale, u)
        u = u - torch.log(sum_over_ranks(totals, group))
    return u, shared[-1]
