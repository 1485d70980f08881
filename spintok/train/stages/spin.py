"""Stage III, Spin and DC-Spin: each view of an utterance predicts the codes of the other.

Chang, Liu, Glass 2023, "Self-supervised Fine-tuning for Improved Content Representations by Speaker-invariant
Clustering"; with two codebooks, Chang, Gong, Wang, Glass, Chung 2024, "DC-Spin". All codebooks quantize the same
features, each after its own projection, and their losses are added.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from spintok_kernels import swapped_prediction_loss
from torch import Tensor, nn
from torch.nn import functional as F

from spintok.models.codebook import Codebook, CodebookConfig
from spintok.progress import Progress
from spintok.train.batching.examples import Batch, Examples
from spintok.train.batching.frozen import FrozenExamples
from spintok.train.batching.labels import code_labels
from spintok.train.batching.views import ViewExamples
from spintok.train.distributed import Distributed
from spintok.train.recipe import SpinRecipe
from spintok.train.recipe_sections import CodebookPlan, SpinLossConfig
from spintok.train.stages.base import Corpus, Stage, StageModel, Step, valid_frames
from spintok.train.stages.code_labels import CodeLabels
from spintok.train.stages.start import open_start, open_tokenizer, trainable
from spintok.train.trainable import TrainableEncoder

__all__ = ["SpinModel", "build"]


def build(recipe: SpinRecipe, corpus: Corpus, distributed: Distributed) -> Stage:
    """Open the encoder, and the tokenizer for pseudo-labels if there are any. Raises ``ValueError``."""
    encoder = trainable(
        recipe,
        open_start(recipe),
        layer=recipe.layer,
        train_layers=recipe.train_layers,
        train_front_end=recipe.train_front_end,
    )
    teacher = None if recipe.labels is None else open_tokenizer("labels.tokenizer", recipe.labels.tokenizer)
    model = SpinModel(
        encoder,
        recipe.codebooks,
        recipe.loss,
        distributed,
        labels=0 if teacher is None else teacher.codebook_size,
        label_weight=0.0 if recipe.labels is None else recipe.labels.weight,
        label_source="features" if recipe.labels is None else recipe.labels.source,
    )
    plan = Stage.plan_batches(recipe, corpus.samples, distributed)
    recordings = corpus.recordings(recipe)
    views = ViewExamples(recordings, recipe.views, recipe.loop.seed)

    def make_examples(folder: Path, progress: Progress) -> Examples:
        if teacher is not None:
            on_device = teacher.to(distributed.device)
            labels = code_labels(on_device, corpus.utterances, folder, distributed, progress)
            return ViewExamples(recordings, recipe.views, recipe.loop.seed, labels)
        if not recipe.views.variants:
            return views
        encoder.to(distributed.device).train()
        return FrozenExamples.build(views, encoder, plan.samples, folder, distributed, progress)

    return Stage(model, plan, make_examples)


class SpinModel(StageModel):
    """The encoder with its codebooks, and the sum of their swapped-prediction losses.

    Args:
        encoder: its upper layers train.
        plans: the codebooks to create; torch's global generator draws their initial weights.
        loss: temperature, and Sinkhorn's epsilon and number of iterations.
        distributed: the processes over which Sinkhorn's column totals are summed.
        labels, label_weight: number of pseudo-labels, 0 for none, and the weight of their cross-entropy, which is the
            mean over the frames of both views.
        label_source: what predicts the labels: "features", through a linear layer, or "codes", from every codebook,
            weighted as the codebook's own loss.
    """

    detects_collapse = True

    def __init__(
        self,
        encoder: TrainableEncoder,
        plans: Sequence[CodebookPlan],
        loss: SpinLossConfig,
        distributed: Distributed,
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
        self.distributed = distributed
        self.label_head = nn.Linear(width, labels) if labels and label_source == "features" else None
        self.code_labels = (
            nn.ModuleList(CodeLabels(plan.size, labels, distributed) for plan in plans)
            if labels and label_source == "codes"
            else None
        )
        self.label_weight = label_weight

    def forward(self, batch: Batch) -> Step:
        """The loss of a batch with two views: the weighted sum over codebooks, plus the cross-entropy of the labels.

        Statistics: ``loss_X``, ``perplexity_X`` (the lower of the two views' code perplexities) and ``agreement_X`` for
        each codebook X, and ``label_loss``.
        """
        assert batch.second is not None
        # One pass for both views: the frozen layers without gradient, the others with.
        inputs = torch.cat([batch.inputs, batch.second])
        features, counts = self.encoder(inputs, batch.lengths.repeat(2))
        frames = valid_frames(features, counts)
        with torch.autocast(frames.device.type, enabled=False):
            loss = frames.new_zeros(())
            statistics: dict[str, Tensor] = {}
            books = self.codebooks.values()
            embedded = [book.embed(frames) for book in books]
            for book, z, weight in zip(books, embedded, self.weights, strict=True):
                loss = loss + weight * self.swapped_loss(book, z, statistics)
            if self.label_head is not None or self.code_labels is not None:
                total = self.distributed.sum(torch.tensor(float(len(frames)), device=frames.device))
                label_loss = self._label_loss(frames, embedded, self._labels(batch).repeat(2))
                label_loss = label_loss * self.distributed.world_size / total
                statistics["label_loss"] = self.distributed.sum(label_loss.detach()) / self.distributed.world_size
                loss = loss + self.label_weight * label_loss
        return Step(loss, statistics)

    def swapped_loss(self, book: Codebook, z: Tensor, statistics: dict[str, Tensor]) -> Tensor:
        """The swapped-prediction loss of ``book`` on embeddings (2N, E) of both views; adds to ``statistics``."""
        z1, z2 = z.chunk(2)
        result = swapped_prediction_loss(
            z1,
            z2,
            book.normalized_codewords(),
            temperature=self.loss.temperature,
            epsilon=self.loss.epsilon,
            iterations=self.loss.iterations,
            group=self.distributed.group,
        )
        assert result.assignment_perplexity is not None
        assert result.agreement is not None
        name = book.config.name
        statistics[f"loss_{name}"] = self.distributed.sum(result.loss.detach()) / self.distributed.world_size
        statistics[f"perplexity_{name}"] = result.assignment_perplexity.min()
        statistics[f"agreement_{name}"] = result.agreement
        return result.loss

    def _label_loss(self, frames: Tensor, embedded: Sequence[Tensor], labels: Tensor) -> Tensor:
        """The summed cross-entropy of ``labels`` (N,), from features (N, D) or codebook embeddings (N, E)."""
        if self.label_head is not None:
            return F.cross_entropy(self.label_head(frames), labels, reduction="sum")
        assert self.code_labels is not None
        total = frames.new_zeros(())
        books = self.codebooks.values()
        for book, z, weight, head in zip(books, embedded, self.weights, self.code_labels, strict=True):
            cosines = z @ book.normalized_codewords().T
            total = total + weight * head((cosines / self.loss.temperature).softmax(1), labels)
        return total

    @staticmethod
    def _labels(batch: Batch) -> Tensor:
        assert batch.labels is not None
        return batch.labels[batch.labels >= 0]
