"""The two views of an utterance: the recording, and the same words as if spoken by someone else, somewhere else."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from spintok.augment import draw, perturb, utterance_rng
from spintok.augment.noise import add_noise, add_reverb, babble, band_limit, colored_noise, excerpt, impulse_responses
from spintok.data.audio import read
from spintok.data.manifest import Utterance, scan
from spintok.frames import SAMPLE_RATE
from spintok.train.batching.examples import Batch, Crop, Recordings, pad
from spintok.train.batching.labels import Labels
from spintok.train.batching.pauses import pauses
from spintok.train.batching.plan import BatchSpec
from spintok.train.batching.surroundings import Placed, cut, surround
from spintok.train.recipe_sections import ViewsConfig

__all__ = ["ViewExamples"]

# The largest number of voices in babble.
_MAX_VOICES = 5


class ViewExamples:
    """Batches with two views. The draws for an utterance depend only on the seed, the epoch and its key.

    Args:
        recordings: the corpus.
        views: how the second view is made.
        seed: seeds all draws.
        labels: the labels of every frame, for stages with pseudo-labels.
        find_pauses: whether batches say which frames lie in a pause.
    """

    def __init__(
        self,
        recordings: Recordings,
        views: ViewsConfig,
        seed: int,
        labels: Labels | None = None,
        *,
        find_pauses: bool = False,
    ) -> None:
        self.find_pauses = find_pauses
        self.recordings = recordings
        self.views = views
        self.seed = seed
        self.noise: Sequence[Utterance] = scan(views.noise_files) if views.noise_files else ()
        self.labels = labels

    def __call__(self, spec: BatchSpec) -> Batch:
        """Prepare a batch: crop first, so that both views have the same length, then make the second views.

        With ``views.surroundings`` the second views have other lengths, and ``Batch.shared`` says which frames both
        have.
        """
        epoch = spec.position.epoch % self.views.variants if self.views.variants else spec.position.epoch
        rngs = self._rngs(spec.rows, epoch)
        crops = [self.recordings.crop(row, rng) for row, rng in zip(spec.rows, rngs, strict=True)]
        waveforms, lengths = pad([crop.waveform for crop in crops])
        labels = None
        if self.labels is not None:
            found = [self.labels.of(row, crop) for row, crop in zip(spec.rows, crops, strict=True)]
            labels = pad(found, -1)[0]
        batch = Batch(
            spec.position,
            int(lengths.sum()) / SAMPLE_RATE,
            waveforms,
            lengths,
            labels=labels,
            pauses=pad([torch.from_numpy(pauses(crop.waveform)) for crop in crops])[0] if self.find_pauses else None,
        )
        if self.views.surroundings is None:
            return replace(batch, second=self._second(waveforms, lengths, rngs))
        pieces = [self.piece(crop.waveform, rng) for crop, rng in zip(crops, rngs, strict=True)]
        second = self._second(*pad([piece.waveform for piece in pieces]), rngs)
        changed = [
            self.surrounded(replace(piece, waveform=one[: len(piece.waveform)]), rng)
            for piece, one, rng in zip(pieces, second, rngs, strict=True)
        ]
        second, second_lengths = pad([one.waveform for one in changed])
        shared = torch.tensor([[one.original, one.first, one.count] for one in changed])
        return replace(batch, second=second, second_lengths=second_lengths, shared=shared)

    def piece(self, waveform: Tensor, rng: np.random.Generator) -> Placed:
        """A waveform (S,), or a piece of it if the recipe asks for pieces."""
        surroundings = self.views.surroundings
        return Placed.whole(waveform) if surroundings is None else cut(waveform, surroundings, rng)

    def surrounded(self, piece: Placed, rng: np.random.Generator) -> Placed:
        """``piece`` with something else around it, if the recipe asks for that."""
        surroundings = self.views.surroundings
        return piece if surroundings is None else surround(piece, surroundings, rng, lambda: self._another(rng))

    def _another(self, rng: np.random.Generator) -> Tensor:
        return read(self.recordings.utterances[int(rng.integers(len(self.recordings.utterances)))].path)

    def _rngs(self, rows: Sequence[int], epoch: int) -> list[np.random.Generator]:
        return [utterance_rng(self.seed, epoch, self.recordings.utterances[row].key) for row in rows]

    def pair(self, rows: Sequence[int], epoch: int) -> tuple[list[Crop], Tensor, Tensor, Tensor]:
        """Crops, first views (B, S), their lengths (B,) and second views (B, S) of the utterances ``rows``."""
        rngs = self._rngs(rows, epoch)
        crops = [self.recordings.crop(row, rng) for row, rng in zip(rows, rngs, strict=True)]
        waveforms, lengths = pad([crop.waveform for crop in crops])
        return crops, waveforms, lengths, self._second(waveforms, lengths, rngs)

    def second(self, waveform: Tensor, rng: np.random.Generator) -> Tensor:
        """The second view (S,) of a waveform (S,)."""
        return self._second(waveform[None], torch.tensor([len(waveform)]), [rng])[0]

    def _second(self, waveforms: Tensor, lengths: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        second = perturb(waveforms, lengths, [draw(rng, self.views.speaker) for rng in rngs])
        second = self._shift(second, lengths, rngs)
        second = self._add_reverb(second, lengths, rngs)
        second = self._add_noise(second, lengths, rngs)
        return self._limit_band(second, lengths, rngs)

    def _shift(self, waveforms: Tensor, lengths: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        if not self.views.shift:
            return waveforms
        shifted = torch.zeros_like(waveforms)
        for i, rng in enumerate(rngs):
            delay = int(rng.integers(-self.views.shift, self.views.shift + 1))
            length = int(lengths[i])
            shifted[i, max(0, delay) : length + min(0, delay)] = waveforms[i, max(0, -delay) : length - max(0, delay)]
        return shifted

    def _add_reverb(self, waveforms: Tensor, lengths: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        for i in _drawn(self.views.reverb, rngs):
            rt60 = rngs[i].uniform(self.views.rt60_min, self.views.rt60_max)
            response = impulse_responses(rngs[i], torch.tensor([rt60], dtype=torch.float32))
            # One utterance at a time, at its own length, so that the result does not depend on the batch.
            waveforms[i : i + 1, : lengths[i]] = add_reverb(
                waveforms[i : i + 1, : lengths[i]], lengths[i : i + 1], response
            )
        return waveforms

    def _add_noise(self, waveforms: Tensor, lengths: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        for i in _drawn(self.views.noise, rngs):
            length = int(lengths[i])
            snr = torch.tensor([rngs[i].uniform(self.views.snr_min, self.views.snr_max)], dtype=torch.float32)
            noise = self._draw_noise(rngs[i], length)
            waveforms[i : i + 1, :length] = add_noise(waveforms[i : i + 1, :length], lengths[i : i + 1], noise, snr)
        return waveforms

    def _limit_band(self, waveforms: Tensor, lengths: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        for i in _drawn(self.views.band, rngs):
            cutoff = rngs[i].uniform(self.views.band_min, self.views.band_max)
            waveforms[i, : lengths[i]] = band_limit(waveforms[i, : lengths[i]], cutoff)
        return waveforms

    def _draw_noise(self, rng: np.random.Generator, samples: int) -> Tensor:
        """(1, M): babble, an excerpt of a noise recording, or synthetic noise."""
        if self.views.babble and rng.random() < self.views.babble:
            others = rng.integers(len(self.recordings.utterances), size=int(rng.integers(2, _MAX_VOICES + 1)))
            voices = [read(self.recordings.utterances[row].path) for row in others.tolist()]
            return babble([excerpt(voice, samples, rng) for voice in voices])[None]
        if not self.noise:
            return colored_noise(rng, 1, samples, slope=rng.uniform(0.0, 2.0))
        waveform = read(self.noise[int(rng.integers(len(self.noise)))].path)
        first = int(rng.integers(max(1, len(waveform) - samples + 1)))
        return waveform[None, first : first + samples]


def _drawn(probability: float, rngs: Sequence[np.random.Generator]) -> list[int]:
    """Indices drawn with ``probability``; a probability of 0 draws no random number."""
    return [i for i, rng in enumerate(rngs) if probability and rng.random() < probability]
