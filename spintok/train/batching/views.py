"""The two views of an utterance: the recording, and the same words as if another person had said them elsewhere."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from spintok.augment import draw, perturb, utterance_rng
from spintok.augment.noise import add_noise, add_reverb, babble, band_limit, colored_noise, excerpt, impulse_responses
from spintok.data.audio import read
from spintok.data.manifest import Utterance
from spintok.frames import SAMPLE_RATE
from spintok.train.batching.examples import Batch, Crop, Recordings, pad
from spintok.train.batching.labels import Labels
from spintok.train.batching.plan import Planned
from spintok.train.recipe import ViewsConfig

__all__ = ["SpinExamples"]

# Of babble, at most.
_VOICES = 5


class SpinExamples:
    """Batches of two views. What is drawn for an utterance depends on the seed, the epoch and its key only.

    Args:
        recordings: the corpus.
        views: how the second view differs.
        seed: of all draws.
        noise: recordings of noise; empty for synthetic noise.
        labels: of every frame, where pseudo-labels train too.
    """

    def __init__(
        self,
        recordings: Recordings,
        views: ViewsConfig,
        seed: int,
        noise: Sequence[Utterance] = (),
        labels: Labels | None = None,
    ) -> None:
        self.recordings = recordings
        self.views = views
        self.seed = seed
        self.noise = noise
        self.labels = labels

    def __call__(self, planned: Planned) -> Batch:
        """The batch: crop first, so that both views share window and length, then perturb, shift, reverberate, add
        noise, cut the band."""
        epoch = planned.place.epoch % self.views.variants if self.views.variants else planned.place.epoch
        crops, waveforms, lengths, second = self.pair(planned.rows, epoch)
        labels = None
        if self.labels is not None:
            found = [self.labels.of(row, crop) for row, crop in zip(planned.rows, crops, strict=True)]
            labels = pad(found, -1)[0]
        seconds = int(lengths.sum()) / SAMPLE_RATE
        return Batch(planned.place, seconds, waveforms, lengths, second=second, labels=labels)

    def pair(self, rows: Sequence[int], epoch: int) -> tuple[list[Crop], Tensor, Tensor, Tensor]:
        """Crops, first views (B, S), their lengths (B,) and second views (B, S) of the utterances ``rows``."""
        rngs = [utterance_rng(self.seed, epoch, self.recordings.utterances[row].key) for row in rows]
        crops = [self.recordings.crop(row, rng) for row, rng in zip(rows, rngs, strict=True)]
        waveforms, lengths = pad([crop.waveform for crop in crops])
        return crops, waveforms, lengths, self._second(waveforms, lengths, rngs)

    def second(self, waveform: Tensor, rng: np.random.Generator) -> Tensor:
        """The second view (S,) of a waveform (S,)."""
        return self._second(waveform[None], torch.tensor([len(waveform)]), [rng])[0]

    def _second(self, waveforms: Tensor, lengths: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        second = perturb(waveforms, lengths, [draw(rng, self.views.speaker) for rng in rngs])
        second = self._shift(second, lengths, rngs)
        second = self._reverberate(second, lengths, rngs)
        second = self._add_noise(second, lengths, rngs)
        return self._narrow(second, lengths, rngs)

    def _shift(self, waveforms: Tensor, lengths: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        if not self.views.shift:
            return waveforms
        shifted = torch.zeros_like(waveforms)
        for i, rng in enumerate(rngs):
            late = int(rng.integers(-self.views.shift, self.views.shift + 1))
            length = int(lengths[i])
            shifted[i, max(0, late) : length + min(0, late)] = waveforms[i, max(0, -late) : length - max(0, late)]
        return shifted

    def _reverberate(self, waveforms: Tensor, lengths: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        for i in _chosen(self.views.reverb, rngs):
            rt60 = rngs[i].uniform(self.views.rt60_min, self.views.rt60_max)
            response = impulse_responses(rngs[i], torch.tensor([rt60], dtype=torch.float32))
            # One at a time, each at its own length: what becomes of it does not depend on the others.
            waveforms[i : i + 1, : lengths[i]] = add_reverb(
                waveforms[i : i + 1, : lengths[i]], lengths[i : i + 1], response
            )
        return waveforms

    def _add_noise(self, waveforms: Tensor, lengths: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        for i in _chosen(self.views.noise, rngs):
            length = int(lengths[i])
            snr = torch.tensor([rngs[i].uniform(self.views.snr_min, self.views.snr_max)], dtype=torch.float32)
            noise = self._noise(rngs[i], length)
            waveforms[i : i + 1, :length] = add_noise(waveforms[i : i + 1, :length], lengths[i : i + 1], noise, snr)
        return waveforms

    def _narrow(self, waveforms: Tensor, lengths: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        for i in _chosen(self.views.band, rngs):
            top = rngs[i].uniform(self.views.band_min, self.views.band_max)
            waveforms[i, : lengths[i]] = band_limit(waveforms[i, : lengths[i]], top)
        return waveforms

    def _noise(self, rng: np.random.Generator, samples: int) -> Tensor:
        """(1, M): people talking, a stretch of a noise recording, or synthetic noise."""
        if self.views.babble and rng.random() < self.views.babble:
            others = rng.integers(len(self.recordings.utterances), size=int(rng.integers(2, _VOICES + 1)))
            voices = [read(self.recordings.utterances[row].path) for row in others.tolist()]
            return babble([excerpt(voice, samples, rng) for voice in voices])[None]
        if not self.noise:
            return colored_noise(rng, 1, samples, slope=rng.uniform(0.0, 2.0))
        waveform = read(self.noise[int(rng.integers(len(self.noise)))].path)
        first = int(rng.integers(max(1, len(waveform) - samples + 1)))
        return waveform[None, first : first + samples]


def _chosen(chance: float, rngs: Sequence[np.random.Generator]) -> list[int]:
    """The utterances that get something; what has no chance draws nothing."""
    return [i for i, rng in enumerate(rngs) if chance and rng.random() < chance]
