"""Spin and DC-Spin: each view of an utterance predicts the codes of the other.

Chang, Liu, Glass 2023, "Self-supervised Fine-tuning for Improved Content Representations by Speaker-invariant
Clustering"; with two codebooks, Chang, Gong, Wang, Glass, Chung 2024, "DC-Spin". Each codebook has a projection of
its own over the same features, and their losses add.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from spintok_kernels import swapped_prediction_loss
from torch import Tensor, nn
from torch.nn import functional as F

from spintok.models.codebook import Codebook, CodebookConfig
from spintok.train.batching.examples import Batch
from spintok.train.distributed import Ranks
from spintok.train.recipe import CodebookPlan, SpinLossConfig
from spintok.train.stages.base import StageModel, Step, valid_frames
from spintok.train.stages.code_labels import CodeLabels
from spintok.train.stages.trainable import TrainableEncoder

__all__ = ["SpinModel"]


class SpinModel(StageModel):
    """The encoder with its codebooks, and the sum of their swapped-prediction losses.

    Args:
        encoder: the highest layers train.
        plans: the codebooks; initialised at random by torch's generator.
        loss: temperatures and iterations.
        ranks: over which the code totals of Sinkhorn are summed.
        labels, label_weight: how many pseudo-labels there are, 0 for none, and the weight of their cross-entropy, which
            is the mean over the frames of both views.
        label_source: "features" has a linear layer predict them, "codes" each codebook, with the weight of its plan.
    """

    watches_collapse = True

    def __init__(
        self,
        encoder: TrainableEncoder,
        plans: Sequence[CodebookPlan],
        loss: SpinLossConfig,
        ranks: Ranks,
        *,
        labels: int = 0,
        label_weight: float = 0.0,
        label_source: Literal["features", "codes"] = "features",
    ) -> None:
        width = encoder.encoder.num_features
        books = [
            Codebook(CodebookConfig(plan.name, plan.size, width, plan.width, "dot", projection=True)) for plan in plans
        ]
        super().__init__(encoder, books)
        self.weights = [plan.weight for plan in plans]
        self.loss = loss
        self.ranks = ranks
        self.label_head = nn.Linear(width, labels) if labels and label_source == "features" else None
        self.code_labels = (
            nn.ModuleList(CodeLabels(plan.size, labels, ranks) for plan in plans)
            if labels and label_source == "codes"
            else None
        )
        self.label_weight = label_weight

    def forward(self, batch: Batch) -> Step:
        """The loss of a batch with two views: the weighted sum over codebooks, and the labels' cross-entropy.

        Figures: ``loss_X``, ``perplexity_X`` (of the codes of the view that uses fewest) and ``agreement_X`` for each
        codebook X, and ``label_loss``.
        """
        assert batch.second is not None
        # One pass for both views: the frozen part without gradient, the rest with.
        inputs = torch.cat([batch.inputs, batch.second])
        features, counts = self.encoder(inputs, batch.lengths.repeat(2))
        frames = valid_frames(features, counts)
        with torch.autocast(frames.device.type, enabled=False):
            loss = frames.new_zeros(())
            figures: dict[str, Tensor] = {}
            books = self.codebooks.values()
            embedded = [book.embed(frames) for book in books]
            for book, z, weight in zip(books, embedded, self.weights, strict=True):
                one = self._swapped(book, z, figures)
                loss = loss + weight * one
            if self.label_head is not None or self.code_labels is not None:
                everywhere = self.ranks.total(torch.tensor(float(len(frames)), device=frames.device))
                one = self._label_loss(frames, embedded, self._labels(batch).repeat(2)) * self.ranks.size / everywhere
                figures["label_loss"] = self.ranks.total(one.detach()) / self.ranks.size
                loss = loss + self.label_weight * one
        return Step(loss, figures)

    def _label_loss(self, frames: Tensor, embedded: Sequence[Tensor], labels: Tensor) -> Tensor:
        """The summed cross-entropy of ``labels`` (N,): of the layer on the features (N, D), or of all codebooks, from
        what each of them embeds them as (N, E)."""
        if self.label_head is not None:
            return F.cross_entropy(self.label_head(frames), labels, reduction="sum")
        assert self.code_labels is not None
        total = frames.new_zeros(())
        books = self.codebooks.values()
        for book, z, weight, code_labels in zip(books, embedded, self.weights, self.code_labels, strict=True):
            cosines = z @ book.normalized_codewords().T
            total = total + weight * code_labels((cosines / self.loss.temperature).softmax(1), labels)
        return total

    def _swapped(self, book: Codebook, z: Tensor, figures: dict[str, Tensor]) -> Tensor:
        z1, z2 = z.chunk(2)
        result = swapped_prediction_loss(
            z1,
            z2,
            book.normalized_codewords(),
            temperature=self.loss.temperature,
            epsilon=self.loss.epsilon,
            iterations=self.loss.iterations,
            group=self.ranks.group,
        )
        assert result.assignment_perplexity is not None
        assert result.agreement is not None
        name = book.config.name
        figures[f"loss_{name}"] = self.ranks.total(result.loss.detach()) / self.ranks.size
        figures[f"perplexity_{name}"] = result.assignment_perplexity.min()
        figures[f"agreement_{name}"] = result.agreement
        return result.loss

    @staticmethod
    def _labels(batch: Batch) -> Tensor:
        assert batch.labels is not None
        return batch.labels[batch.labels >= 0]
