"""Stage I, masked prediction: the encoder learns to predict the labels of frames that it does not see.

Hsu, Bolte, Tsai, Lakhotia, Salakhutdinov, Mohamed 2021, "HuBERT" (arXiv 2106.07447), section II-B. With K-means ids as
labels this is HuBERT; with the codes of a Spin tokenizer, SpinHuBERT (Chang et al. 2024, "DC-Spin"); with phones from
alignments, supervised training.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spintok.augment import utterance_rng
from spintok.frames import SAMPLE_RATE, num_frames
from spintok.masks import padding_mask
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.encoder import random_encoder
from spintok.progress import Progress
from spintok.tokenizer import Tokenizer
from spintok.train.batching.examples import Batch, Crop, Examples, Recordings, pad
from spintok.train.batching.labels import Labels, code_labels
from spintok.train.batching.pauses import pauses
from spintok.train.batching.plan import BatchSpec
from spintok.train.batching.surroundings import Placed
from spintok.train.batching.views import ViewExamples
from spintok.train.distributed import Distributed
from spintok.train.recipe import PretrainRecipe, RecipeError
from spintok.train.recipe_sections import MaskConfig
from spintok.train.stages.base import Corpus, Stage, StageModel, Step, full_precision
from spintok.train.stages.masking import span_mask
from spintok.train.stages.phones import is_alignments, read_phones
from spintok.train.stages.start import open_start, open_tokenizer, trainable
from spintok.train.trainable import TrainableEncoder

__all__ = ["Head", "MaskedExamples", "MaskedPrediction", "build"]


def build(recipe: PretrainRecipe, corpus: Corpus, distributed: Distributed) -> Stage:
    """Open or initialize the encoder, and read alignments or open the tokenizer that labels. Raises ``ValueError``."""
    if (recipe.encoder is None) == (recipe.start is None):
        raise RecipeError("a pretrain recipe needs either [encoder], to train from scratch, or start (--init)")
    if recipe.encoder is not None:
        encoder = random_encoder(recipe.encoder, torch.Generator().manual_seed(recipe.loop.seed))
    else:
        encoder = open_start(recipe)
    recordings, samples = corpus.recordings(recipe), corpus.samples
    notes: tuple[str, ...] = ()
    phones: Labels | None = None
    if is_alignments(recipe.labels):
        phones, aligned, notes = read_phones("labels", recipe.labels, corpus)
        samples = np.where(aligned, samples, 0)
        heads = [Head.new("primary", phones.size, encoder.num_features, recipe.width)]
    else:
        teacher = open_tokenizer("labels", recipe.labels)
        if recipe.codebooks:
            heads = [Head.copied(teacher, name, 1 / len(recipe.codebooks)) for name in recipe.codebooks]
        else:
            heads = [Head.new("primary", teacher.codebook_size, encoder.num_features, recipe.width)]
        if recipe.phones is not None:
            phones, _, notes = read_phones("phones.alignments", recipe.phones.alignments, corpus)
            heads.append(Head.new("phones", phones.size, encoder.num_features, recipe.width, recipe.phones.weight))
    model = MaskedPrediction(
        trainable(recipe, encoder, layer=recipe.layer), heads, recipe.temperature, recipe.unmasked, distributed
    )
    views = ViewExamples(recordings, recipe.views, recipe.loop.seed)

    def make_examples(folder: Path, progress: Progress) -> Examples:
        kinds = [] if phones is None else [phones]
        if len(heads) > len(kinds):
            on_device = teacher.to(distributed.device)
            codes = code_labels(on_device, corpus.utterances, folder, distributed, progress, recipe.codebooks)
            kinds.insert(0, codes)
        return MaskedExamples(
            recordings,
            kinds,
            recipe.mask,
            recipe.loop.seed,
            second_view_probability=recipe.second_view_probability,
            views=views,
            pauses=recipe.pauses,
        )

    return Stage(model, Stage.plan_batches(recipe, samples, distributed), make_examples, notes)


@dataclass(frozen=True)
class Head:
    """A codebook that predicts labels, one codeword for each, and the weight of its loss."""

    codebook: Codebook
    weight: float

    @classmethod
    def new(cls, name: str, labels: int, features: int, width: int, weight: float = 1.0) -> "Head":
        """One with random weights, for ``labels`` different labels, on ``features`` features."""
        return cls(Codebook(CodebookConfig(name, labels, features, width, "dot", projection=True)), weight)

    @classmethod
    def copied(cls, tokenizer: Tokenizer, name: str, weight: float) -> "Head":
        """One that begins as codebook ``name`` of a tokenizer. Raises ``RecipeError``."""
        try:
            codebook = copy.deepcopy(tokenizer.codebook(name))
        except ValueError as error:
            raise RecipeError(f"codebooks: {error}") from None
        return cls(codebook.requires_grad_(), weight)


class MaskedExamples:
    """Batches with labels and masks. The draws for an utterance depend only on the seed, the epoch and its key.

    Args:
        recordings: the corpus.
        labels: the labels of every frame, of one or more kinds.
        mask: the masked spans.
        seed: seeds all draws.
        second_view_probability: probability that an utterance is replaced by its second view.
        views: makes second views of the same recordings, and changes what stands around the speech.
        pauses: whether frames in pauses have labels of the first kind.
    """

    def __init__(
        self,
        recordings: Recordings,
        labels: Sequence[Labels],
        mask: MaskConfig,
        seed: int,
        *,
        second_view_probability: float = 0.0,
        views: ViewExamples | None = None,
        pauses: bool = True,
    ) -> None:
        self.recordings = recordings
        self.labels = labels
        self.mask = mask
        self.seed = seed
        self.second_view_probability = second_view_probability
        self.views = views
        self.pauses = pauses

    def __call__(self, spec: BatchSpec) -> Batch:
        waveforms, labels, masks = [], [], []
        for row in spec.rows:
            rng = utterance_rng(self.seed, spec.position.epoch, self.recordings.utterances[row].key)
            crop = self.recordings.crop(row, rng)
            placed = Placed.whole(crop.waveform) if self.views is None else self.views.piece(crop.waveform, rng)
            mask = span_mask(rng, placed.count, self.mask)
            if self.views is not None:
                if rng.random() < self.second_view_probability:
                    placed = replace(placed, waveform=self.views.second(placed.waveform, rng))
                placed = self.views.surrounded(placed, rng)
            waveforms.append(placed.waveform)
            # What stands around the speech has no labels and is not masked.
            after = num_frames(len(placed.waveform)) - placed.first - placed.count
            known = self._labels(row, crop)[placed.original : placed.original + placed.count]
            labels.append(F.pad(known, (0, 0, placed.first, after), value=-1))
            masks.append(F.pad(torch.from_numpy(mask), (placed.first, after)))
        inputs, lengths = pad(waveforms)
        seconds = int(lengths.sum()) / SAMPLE_RATE
        masked = pad(masks, False)[0]
        return Batch(spec.position, seconds, inputs, lengths, masked=masked, labels=pad(labels, -1)[0])

    def _labels(self, row: int, crop: Crop) -> Tensor:
        """The labels (T, L) of a crop of utterance ``row``, those of the first kind first."""
        kinds = [kind.of(row, crop).view(crop.frames, -1) for kind in self.labels]
        if not self.pauses:
            kinds[0][torch.from_numpy(pauses(crop.waveform))] = -1
        return torch.cat(kinds, 1)


class MaskedPrediction(StageModel):
    """The encoder, and heads: a projection and a unit vector for each label; logits are cosines over ``temperature``.

    Args:
        encoder: all of it trains.
        heads: one for each kind of labels; the first is the primary codebook of the tokenizer.
        temperature: divides the cosine similarities.
        unmasked: weight of the mean loss over frames that are not masked.
        distributed: the processes whose frames are counted.
    """

    def __init__(
        self,
        encoder: TrainableEncoder,
        heads: Sequence[Head],
        temperature: float,
        unmasked: float,
        distributed: Distributed,
    ) -> None:
        super().__init__(encoder, [head.codebook for head in heads])
        self.weights = [head.weight for head in heads]
        self.temperature = temperature
        self.unmasked = unmasked
        self.distributed = distributed
        self.mask_embedding = nn.Parameter(torch.empty(encoder.encoder.num_features).uniform_())

    def forward(self, batch: Batch) -> Step:
        """The mean cross-entropy over masked frames, plus ``unmasked`` times that over the others; summed over heads.

        Statistics, over masked frames, or all if none is masked: ``accuracy``, and ``perplexity`` of the predicted
        labels, which is the exponential of their entropy. Those of further heads have their names as suffix.
        """
        assert batch.labels is not None
        assert batch.masked is not None
        encoder = self.encoder.encoder
        features, counts = encoder.local_features(batch.inputs, batch.lengths, chunk=batch.chunk)
        features = torch.where(batch.masked[:, :, None], self.mask_embedding.to(features.dtype), features)
        valid = padding_mask(counts, features.shape[1])
        features = encoder.transformer(features, valid, layers=[self.encoder.layer], chunk=batch.chunk)[0]
        statistics: dict[str, Tensor] = {}
        with torch.autocast(features.device.type, enabled=False):
            loss = features.new_zeros((), dtype=torch.float32)
            masks = self.distributed.sum(batch.masked.sum()) > 0
            heads = zip(self.codebooks.values(), self.weights, batch.labels.unbind(2), strict=True)
            for number, (book, weight, labels) in enumerate(heads):
                known = labels >= 0
                part, found = self._loss(book, features, labels, batch.masked & known)
                if self.unmasked:
                    visible, seen = self._loss(book, features, labels, ~batch.masked & known)
                    part = part + self.unmasked * visible
                    found = {name: torch.where(masks, value, seen[name]) for name, value in found.items()}
                loss = loss + weight * part
                suffix = f"_{book.config.name}" if number else ""
                statistics |= {f"{name}{suffix}": value for name, value in found.items()}
        return Step(loss, statistics)

    def _loss(
        self, book: Codebook, features: Tensor, labels: Tensor, chosen: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross-entropy over the ``chosen`` frames (B, T) of all processes, and its statistics."""
        labels = labels[chosen]
        z = book.embed(full_precision(features[chosen]))
        logits = z @ book.normalized_codewords().T / self.temperature
        total = F.cross_entropy(logits, labels, reduction="sum")
        codes = logits.detach().argmax(1)
        histogram = torch.bincount(codes, minlength=logits.shape[1]).to(logits.dtype)
        hits = (codes == labels).sum().to(logits.dtype)
        sums = self.distributed.sum(torch.cat([histogram, hits[None]]))
        histogram, hits = sums[:-1], sums[-1]
        count = histogram.sum().clamp(min=1)
        perplexity = torch.special.entr(histogram / count).sum().exp()
        # Averaged over the processes, this is the mean over all frames.
        loss = total * (self.distributed.world_size / count)
        return loss, {"accuracy": hits / count, "perplexity": perplexity}
