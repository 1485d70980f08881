"""Masked prediction: the encoder learns to predict the labels of frames that it does not see.

Hsu, Bolte, Tsai, Lakhotia, Salakhutdinov, Mohamed 2021, "HuBERT" (arXiv 2106.07447), section II-B. With K-means ids as
labels it is HuBERT; with the codes of a Spin tokenizer, SpinHuBERT (Chang et al. 2024, "DC-Spin").
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spintok.augment import utterance_rng
from spintok.frames import SAMPLE_RATE
from spintok.masks import padding_mask
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.train.batching.examples import Batch, Recordings, pad
from spintok.train.batching.labels import Labels
from spintok.train.batching.plan import Planned
from spintok.train.batching.views import SpinExamples
from spintok.train.distributed import Ranks
from spintok.train.recipe import MaskConfig
from spintok.train.stages.base import StageModel, Step, full_precision
from spintok.train.stages.masking import span_mask
from spintok.train.stages.trainable import TrainableEncoder

__all__ = ["MaskedExamples", "MaskedPrediction"]


class MaskedExamples:
    """Batches with labels and masks. What is drawn for an utterance depends on the seed, the epoch and its key only.

    Args:
        recordings: the corpus.
        labels: of every frame.
        mask: the spans.
        seed: of all draws.
        disguised: the chance that an utterance is heard as its second view.
        views: makes second views, from the same recordings.
    """

    def __init__(
        self,
        recordings: Recordings,
        labels: Labels,
        mask: MaskConfig,
        seed: int,
        *,
        disguised: float = 0.0,
        views: SpinExamples | None = None,
    ) -> None:
        self.recordings = recordings
        self.labels = labels
        self.mask = mask
        self.seed = seed
        self.disguised = disguised
        self.views = views

    def __call__(self, planned: Planned) -> Batch:
        waveforms, labels, masks = [], [], []
        for row in planned.rows:
            rng = utterance_rng(self.seed, planned.place.epoch, self.recordings.utterances[row].key)
            crop = self.recordings.crop(row, rng)
            labels.append(self.labels.of(row, crop))
            masks.append(torch.from_numpy(span_mask(rng, crop.frames, self.mask)))
            waveform = crop.waveform
            if self.views is not None and rng.random() < self.disguised:
                waveform = self.views.second(waveform, rng)
            waveforms.append(waveform)
        inputs, lengths = pad(waveforms)
        seconds = int(lengths.sum()) / SAMPLE_RATE
        masked = pad(masks, False)[0]
        return Batch(planned.place, seconds, inputs, lengths, masked=masked, labels=pad(labels, -1)[0])


class MaskedPrediction(StageModel):
    """The encoder, a projection, and a unit vector for each label: logits are cosines over ``temperature``.

    Args:
        encoder: all of it trains.
        labels: K, how many there are.
        width: E, of the vectors.
        temperature: divides the cosines.
        unmasked: weight of the mean loss over frames that are not masked.
        ranks: over which frames are counted.
    """

    def __init__(
        self, encoder: TrainableEncoder, labels: int, width: int, temperature: float, unmasked: float, ranks: Ranks
    ) -> None:
        features = encoder.encoder.num_features
        book = Codebook(CodebookConfig("primary", labels, features, width, "dot", projection=True))
        super().__init__(encoder, [book])
        self.temperature = temperature
        self.unmasked = unmasked
        self.ranks = ranks
        self.mask_embedding = nn.Parameter(torch.empty(features).uniform_())

    def forward(self, batch: Batch) -> Step:
        """The mean cross-entropy over masked frames, plus ``unmasked`` times that over the others.

        Figures: ``accuracy`` on masked frames, and ``perplexity``: how many labels are predicted there, as the
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
            loss, figures = self._loss(features, batch.labels, batch.masked & known)
            if self.unmasked:
                loss = loss + self.unmasked * self._loss(features, batch.labels, ~batch.masked & known)[0]
        return Step(loss, figures)

    def _loss(self, features: Tensor, labels: Tensor, chosen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross-entropy over the chosen frames (B, T) of all ranks, and its figures."""
        labels = labels[chosen]
        z = self.primary.embed(full_precision(features[chosen]))
        logits = z @ self.primary.normalized_codewords().T / self.temperature
        total = F.cross_entropy(logits, labels, reduction="sum")
        codes = logits.detach().argmax(1)
        histogram = torch.bincount(codes, minlength=logits.shape[1]).to(logits.dtype)
        hits = (codes == labels).sum().to(logits.dtype)
        everywhere = self.ranks.total(torch.cat([histogram, hits[None]]))
        histogram, hits = everywhere[:-1], everywhere[-1]
        count = histogram.sum().clamp(min=1)
        perplexity = torch.special.entr(histogram / count).sum().exp()
        # The mean over ranks of this is the mean over all frames.
        return total * (self.ranks.size / count), {"accuracy": hits / count, "perplexity": perplexity}
