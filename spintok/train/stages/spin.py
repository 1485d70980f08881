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

from spintok.masks import length_mask
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.progress import Progress
from spintok.train.batching.examples import Batch, Examples
from spintok.train.batching.frozen import FrozenExamples
from spintok.train.batching.labels import code_labels
from spintok.train.batching.views import ViewExamples
from spintok.train.distributed import Distributed
from spintok.train.recipe import RecipeError, SpinRecipe
from spintok.train.recipe_sections import CodebookPlan, SpinLossConfig
from spintok.train.stages.base import Corpus, Stage, StageModel, Step, full_precision
from spintok.train.stages.code_labels import CodeLabels
from spintok.train.stages.phones import is_alignments, read_phones
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
    teacher, phones = None, None
    notes: tuple[str, ...] = ()
    if recipe.labels is not None and is_alignments(recipe.labels.tokenizer):
        phones, _, notes = read_phones("labels.tokenizer", recipe.labels.tokenizer, corpus)
    elif recipe.labels is not None:
        teacher = open_tokenizer("labels.tokenizer", recipe.labels.tokenizer)
    model = SpinModel(
        encoder,
        recipe.codebooks,
        recipe.loss,
        distributed,
        labels=phones.size if phones is not None else 0 if teacher is None else teacher.codebook_size,
        label_weight=0.0 if recipe.labels is None else recipe.labels.weight,
        label_source="features" if recipe.labels is None else recipe.labels.source,
    )
    _keep_codebooks(model, recipe)
    plan = Stage.plan_batches(recipe, corpus.samples, distributed)
    recordings = corpus.recordings(recipe)

    def make_examples(folder: Path, progress: Progress) -> Examples:
        labels = phones
        if teacher is not None:
            on_device = teacher.to(distributed.device)
            labels = code_labels(on_device, corpus.utterances, folder, distributed, progress)
        find_pauses = recipe.loss.pauses < 1
        views = ViewExamples(recordings, recipe.views, recipe.loop.seed, labels, find_pauses=find_pauses)
        if not recipe.views.variants:
            return views
        encoder.to(distributed.device).train()
        return FrozenExamples.build(views, encoder, plan.samples, folder, distributed, progress)

    return Stage(model, plan, make_examples, notes)


def _keep_codebooks(model: "SpinModel", recipe: SpinRecipe) -> None:
    """Copy the codebooks that the recipe keeps from the tokenizer that it starts from. Raises ``RecipeError``."""
    kept = [plan.name for plan in recipe.codebooks if plan.keep]
    if not kept:
        return
    assert recipe.start is not None
    start = open_tokenizer("start", recipe.start)
    for name in kept:
        book = model.codebooks[name]
        try:
            found = start.codebook(name)
        except ValueError as error:
            raise RecipeError(f"codebooks: {error}") from None
        if found.config != book.config:
            raise RecipeError(f"codebooks: {name!r} cannot be kept: {found.config} is not {book.config}")
        book.load_state_dict(found.state_dict())


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
        features, counts = self._views(batch)
        if batch.shared is None:
            places = [(torch.zeros_like(counts[0]), counts[0])] * 2
        else:
            original, first, count = batch.shared.unbind(1)
            places = [(original, count), (first, count)]
        chosen = [_stretch(*place, view.shape[1]) for place, view in zip(places, features, strict=True)]
        frames = full_precision(torch.cat([view[where] for view, where in zip(features, chosen, strict=True)]))
        with torch.autocast(frames.device.type, enabled=False):
            loss = frames.new_zeros(())
            statistics: dict[str, Tensor] = {}
            books = self.codebooks.values()
            embedded = [book.embed(frames) for book in books]
            counted = self._counted(batch, chosen[0])
            for book, z, weight in zip(books, embedded, self.weights, strict=True):
                loss = loss + weight * self.swapped_loss(book, z, statistics, counted)
            if self.label_head is not None or self.code_labels is not None:
                assert batch.labels is not None
                labels = batch.labels[chosen[0]].repeat(2)
                known = labels >= 0
                total = self.distributed.sum(known.sum().to(frames.dtype)).clamp(min=1)
                label_loss = self._label_loss(frames[known], [z[known] for z in embedded], labels[known])
                label_loss = label_loss * self.distributed.world_size / total
                statistics["label_loss"] = self.distributed.sum(label_loss.detach()) / self.distributed.world_size
                loss = loss + self.label_weight * label_loss
        return Step(loss, statistics)

    def _views(self, batch: Batch) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Features (B, T, D) of the first and (B, T', D) of the second view, and the frame counts (B,) of both."""
        assert batch.second is not None
        if batch.second_lengths is None and batch.chunk is None:
            # One pass for both views: the frozen layers without gradient, the others with.
            both, counts = self.encoder(torch.cat([batch.inputs, batch.second]), batch.lengths.repeat(2))
            first, second = both.chunk(2)
            return (first, second), counts.chunk(2)
        lengths = batch.lengths if batch.second_lengths is None else batch.second_lengths
        first, first_counts = self.encoder(batch.inputs, batch.lengths)
        second, second_counts = self.encoder(batch.second, lengths, batch.chunk)
        return (first, second), (first_counts, second_counts)

    def _counted(self, batch: Batch, chosen: Tensor) -> Tensor | None:
        """Which of the ``chosen`` frames (B, T) of the first view count in Sinkhorn's totals, (N,); None for all."""
        if batch.pauses is None:
            return None
        quiet = batch.pauses[chosen]
        counted = ~quiet | (torch.rand(len(quiet), device=quiet.device) < self.loss.pauses)
        return counted if bool(counted.any()) else None

    def swapped_loss(
        self, book: Codebook, z: Tensor, statistics: dict[str, Tensor], counted: Tensor | None = None
    ) -> Tensor:
        """The swapped-prediction loss of ``book`` on embeddings (2N, E) of both views; adds to ``statistics``.

        ``counted`` (N,) is as in ``swapped_prediction_loss``.
        """
        z1, z2 = z.chunk(2)
        result = swapped_prediction_loss(
            z1,
            z2,
            book.normalized_codewords(),
            temperature=self.loss.temperature,
            epsilon=self.loss.epsilon,
            iterations=self.loss.iterations,
            group=self.distributed.group,
            counted=counted,
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


def _stretch(first: Tensor, count: Tensor, frames: int) -> Tensor:
    """(B, ``frames``) True at frame ``first`` and those that follow, ``count`` in all, both (B,)."""
    return length_mask(first + count, frames) & ~length_mask(first, frames)
