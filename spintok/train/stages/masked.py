"""Stage I, masked prediction: the encoder learns to predict the labels of frames that it does not see.

Hsu, Bolte, Tsai, Lakhotia, Salakhutdinov, Mohamed 2021, "HuBERT" (arXiv 2106.07447), section II-B. With K-means ids as
labels this is HuBERT; with the codes of a Spin tokenizer, SpinHuBERT (Chang et al. 2024, "DC-Spin"); with phones from
alignments, supervised training.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from spintok.augment import utterance_rng
from spintok.data.alignment_files import read_alignments
from spintok.data.alignments import match
from spintok.frames import SAMPLE_RATE
from spintok.masks import padding_mask
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.encoder import random_encoder
from spintok.progress import Progress
from spintok.train.batching.examples import Batch, Examples, Recordings, pad
from spintok.train.batching.labels import Labels, code_labels, phone_labels
from spintok.train.batching.plan import BatchSpec
from spintok.train.batching.views import ViewExamples
from spintok.train.distributed import Distributed
from spintok.train.recipe import PretrainRecipe, RecipeError
from spintok.train.recipe_sections import MaskConfig
from spintok.train.stages.base import Corpus, Stage, StageModel, Step, full_precision
from spintok.train.stages.masking import span_mask
from spintok.train.stages.start import open_start, open_tokenizer, trainable
from spintok.train.trainable import TrainableEncoder

__all__ = ["MaskedExamples", "MaskedPrediction", "build"]

_ALIGNMENT_SUFFIXES = {".textgrid", ".ctm", ".tsv", ".jsonl", ".json"}


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
    if _is_alignments(recipe.labels):
        phones, samples, notes = _read_phones(recipe.labels, corpus)
        size = phones.size
    else:
        phones, teacher = None, open_tokenizer("labels", recipe.labels)
        size = teacher.codebook_size
    model = MaskedPrediction(
        trainable(recipe, encoder, layer=recipe.layer),
        size,
        recipe.width,
        recipe.temperature,
        recipe.unmasked,
        distributed,
    )
    views = ViewExamples(recordings, recipe.views, recipe.loop.seed)

    def make_examples(folder: Path, progress: Progress) -> Examples:
        labels = phones or code_labels(teacher.to(distributed.device), corpus.utterances, folder, distributed, progress)
        return MaskedExamples(
            recordings,
            labels,
            recipe.mask,
            recipe.loop.seed,
            second_view_probability=recipe.second_view_probability,
            views=views,
        )

    return Stage(model, Stage.plan_batches(recipe, samples, distributed), make_examples, notes)


def _is_alignments(source: str) -> bool:
    """Whether ``source`` is a file with the suffix of alignments, or a folder that is not a tokenizer."""
    path = Path(source)
    if path.is_dir():
        return not (path / "config.json").exists()
    return path.suffix.lower() in _ALIGNMENT_SUFFIXES


def _read_phones(source: str, corpus: Corpus) -> tuple[Labels, NDArray[np.int64], tuple[str, ...]]:
    """The labels, the samples (N,) with 0 for utterances without an alignment, and notes for the user."""
    keys = [utterance.key for utterance in corpus.utterances]
    try:
        alignments = match(keys, read_alignments(Path(source)))
    except ValueError as error:
        raise RecipeError(f"labels: {error}") from None
    labels, names = phone_labels(alignments, corpus.utterances, corpus.samples)
    usable = np.where([key in alignments for key in keys], corpus.samples, 0)
    notes = [f"the labels are {len(names)} phones: {' '.join(names)}"]
    if skipped := int((usable == 0).sum()):
        notes.append(f"{skipped} of {len(usable)} utterances are skipped: they have no alignment")
    return labels, usable, tuple(notes)


class MaskedExamples:
    """Batches with labels and masks. The draws for an utterance depend only on the seed, the epoch and its key.

    Args:
        recordings: the corpus.
        labels: of every frame.
        mask: the masked spans.
        seed: of all draws.
        second_view_probability: probability that an utterance is replaced by its second view.
        views: makes second views of the same recordings.
    """

    def __init__(
        self,
        recordings: Recordings,
        labels: Labels,
        mask: MaskConfig,
        seed: int,
        *,
        second_view_probability: float = 0.0,
        views: ViewExamples | None = None,
    ) -> None:
        self.recordings = recordings
        self.labels = labels
        self.mask = mask
        self.seed = seed
        self.second_view_probability = second_view_probability
        self.views = views

    def __call__(self, spec: BatchSpec) -> Batch:
        waveforms, labels, masks = [], [], []
        for row in spec.rows:
            rng = utterance_rng(self.seed, spec.position.epoch, self.recordings.utterances[row].key)
            crop = self.recordings.crop(row, rng)
            labels.append(self.labels.of(row, crop))
            masks.append(torch.from_numpy(span_mask(rng, crop.frames, self.mask)))
            waveform = crop.waveform
            if self.views is not None and rng.random() < self.second_view_probability:
                waveform = self.views.second(waveform, rng)
            waveforms.append(waveform)
        inputs, lengths = pad(waveforms)
        seconds = int(lengths.sum()) / SAMPLE_RATE
        masked = pad(masks, False)[0]
        return Batch(spec.position, seconds, inputs, lengths, masked=masked, labels=pad(labels, -1)[0])


class MaskedPrediction(StageModel):
    """The encoder, a projection, and a unit vector for each label: logits are cosine similarities over ``temperature``.

    Args:
        encoder: all of it trains.
        labels: K, the number of labels.
        width: E, dimension of the vectors.
        temperature: divides the cosine similarities.
        unmasked: weight of the mean loss over frames that are not masked.
        distributed: the processes whose frames are counted.
    """

    def __init__(
        self,
        encoder: TrainableEncoder,
        labels: int,
        width: int,
        temperature: float,
        unmasked: float,
        distributed: Distributed,
    ) -> None:
        features = encoder.encoder.num_features
        book = Codebook(CodebookConfig("primary", labels, features, width, "dot", projection=True))
        super().__init__(encoder, [book])
        self.temperature = temperature
        self.unmasked = unmasked
        self.distributed = distributed
        self.mask_embedding = nn.Parameter(torch.empty(features).uniform_())

    def forward(self, batch: Batch) -> Step:
        """The mean cross-entropy over masked frames, plus ``unmasked`` times that over the other frames.

        Statistics, over masked frames: ``accuracy``, and ``perplexity`` of the predicted labels, which is the
        exponential of their entropy.
        """
        assert batch.labels is not None
        assert batch.masked is not None
        encoder = self.encoder.encoder
        features, counts = encoder.local_features(batch.inputs, batch.lengths)
        features = torch.where(batch.masked[:, :, None], self.mask_embedding.to(features.dtype), features)
        valid = padding_mask(counts, features.shape[1])
        features = encoder.transformer(features, valid, layers=[self.encoder.layer])[0]
        with torch.autocast(features.device.type, enabled=False):
            known = batch.labels >= 0
            loss, statistics = self._loss(features, batch.labels, batch.masked & known)
            if self.unmasked:
                loss = loss + self.unmasked * self._loss(features, batch.labels, ~batch.masked & known)[0]
        return Step(loss, statistics)

    def _loss(self, features: Tensor, labels: Tensor, chosen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross-entropy over the ``chosen`` frames (B, T) of all processes, and its statistics."""
        labels = labels[chosen]
        z = self.primary.embed(full_precision(features[chosen]))
        logits = z @ self.primary.normalized_codewords().T / self.temperature
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
