"""Labels predicted from codes: they keep a codebook close to the labels while it learns what two views share.

A frame is assigned to codeword k with probability p(k), the softmax of swapped prediction. Of the frames assigned to k
so far, a fraction q(y | k) had label y. The loss is the cross-entropy of sum_k p(k) q(y | k): a classifier whose only
input is the code, so minimizing it maximizes the information that the codes carry about the labels, which PNMI
measures. The q are counted instead of learned by gradient descent, so they are optimal for the counts at every step.
Unlike Spin's loss, this one holds all N x K probabilities of a batch in memory.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spintok.train.distributed import Distributed

__all__ = ["CodeLabels"]

_DECAY = 0.98
"""Decay of the counts per step: they average over some 50 batches."""
_PRIOR = 1e-3
"""Added to each count, so that an unused codeword predicts all labels equally."""


class CodeLabels(nn.Module):
    """The cross-entropy of labels given codes.

    Args:
        size: K, the number of codewords.
        labels: L, the number of labels.
        distributed: the processes whose frames are counted.
    """

    counts: Tensor

    def __init__(self, size: int, labels: int, distributed: Distributed) -> None:
        super().__init__()
        self.distributed = distributed
        self.register_buffer("counts", torch.zeros(size, labels))

    def forward(self, probabilities: Tensor, labels: Tensor) -> Tensor:
        """The sum over frames in nats; the counts are updated with this batch first.

        Args:
            probabilities: (N, K) float32, rows that sum to 1.
            labels: (N,) int64 in 0 ... L - 1.
        """
        with torch.no_grad():
            joint = probabilities.T @ F.one_hot(labels, self.counts.shape[1]).to(probabilities.dtype)
            # The first batch gets full weight; torch.where does not make the CPU wait for the GPU.
            share = torch.where(self.counts.any(), 1 - _DECAY, 1.0)
            self.counts.mul_(_DECAY).add_(share * self.distributed.sum(joint))
            shares = self.counts + _PRIOR
            shares /= shares.sum(1, keepdim=True)
        predicted = (probabilities @ shares).gather(1, labels[:, None])
        return -predicted.log().sum()
