"""Labels predicted from codes: what keeps a codebook to the labels while it learns what two views share.

A frame chooses codeword k with probability p(k), the softmax of swapped prediction. Of all that chose k so far, a share
q(y | k) had the label y. The loss is the cross-entropy of sum_k p(k) q(y | k): a classifier whose only input is the
code, so that to lower it is to raise the information that codes have of labels, which PNMI measures. The shares are
counted, not learnt by gradient: they are at their best for the counts at every step. Unlike Spin's loss, this one holds
all N x K probabilities of a batch.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spintok.train.distributed import Ranks

__all__ = ["CodeLabels"]

_MEMORY = 0.98
"""What is left of a batch's counts one step later: they are of some 50 batches."""
_FLOOR = 1e-3
"""Added to each count; a codeword that nothing has chosen says nothing of the label."""


class CodeLabels(nn.Module):
    """The cross-entropy of labels given codes.

    Args:
        size: K, codewords.
        labels: L, how many labels there are.
        ranks: over which frames are counted.
    """

    counts: Tensor

    def __init__(self, size: int, labels: int, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks
        self.register_buffer("counts", torch.zeros(size, labels))

    def forward(self, probabilities: Tensor, labels: Tensor) -> Tensor:
        """Sum over frames, in nats; the counts take the batch in first.

        Args:
            probabilities: (N, K) float32, rows that sum to 1.
            labels: (N,) int64 in 0 ... L - 1.
        """
        with torch.no_grad():
            joint = probabilities.T @ F.one_hot(labels, self.counts.shape[1]).to(probabilities.dtype)
            # The first batch has nothing before it to share its weight with; no waiting for a GPU to say so.
            share = torch.where(self.counts.any(), 1 - _MEMORY, 1.0)
            self.counts.mul_(_MEMORY).add_(share * self.ranks.total(joint))
            shares = self.counts + _FLOOR
            shares /= shares.sum(1, keepdim=True)
        predicted = (probabilities @ shares).gather(1, labels[:, None])
        return -predicted.log().sum()
