"""Which utterances share a batch, in every epoch: a pure function of the seed, so any batch can be found again."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from spintok.data.manifest import Utterance
from spintok.frames import SAMPLE_RATE
from spintok.train.recipe import DataConfig

__all__ = ["BatchPlan", "Place", "Planned", "listed_samples"]

# Batches whose utterances are sorted by length together: padding falls, and batches stay mixed.
_POOL = 32


class Place(NamedTuple):
    """A position in the data: batch number ``batch`` of ``epoch``."""

    epoch: int = 0
    batch: int = 0


class Planned(NamedTuple):
    """A batch to prepare: where it stands, and this rank's utterances by their number in the list."""

    place: Place
    rows: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """Batches of like length in random order.

    Attributes:
        samples: (N,) how many samples of each utterance go into a batch; 0 leaves it out.
        batch_samples: of each batch, over all ranks.
        seed: of the order.
        rank, ranks: each batch is shared out evenly among the ranks.
    """

    samples: NDArray[np.int64]
    batch_samples: int
    seed: int
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        count = int((self.samples > 0).sum())
        if count < self.ranks:
            raise ValueError(f"{count} utterances that are long enough cannot be shared by {self.ranks} processes")

    @classmethod
    def of(cls, samples: NDArray[np.int64], data: DataConfig, seed: int, rank: int = 0, ranks: int = 1) -> "BatchPlan":
        """The plan for utterances of ``samples`` (N,) samples, leaving out short ones and counting crops of long ones.

        Raises ``ValueError`` when none is long enough.
        """
        if samples.max(initial=0) < data.min_seconds * SAMPLE_RATE:
            raise ValueError(f"all {len(samples)} utterances are shorter than data.min_seconds, {data.min_seconds} s")
        used = np.where(samples >= data.min_seconds * SAMPLE_RATE, samples, 0)
        used = np.minimum(used, round(data.max_seconds * SAMPLE_RATE))
        return cls(used, round(data.seconds * SAMPLE_RATE), seed, rank, ranks)

    def epoch(self, epoch: int) -> list[tuple[int, ...]]:
        """All batches of an epoch, for all ranks, in order: every utterance once.

        The batches of a pool hold about the same, ``batch_samples`` or less and at most an utterance more.
        """
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(np.flatnonzero(self.samples))
        pools = max(1, round(int(self.samples.sum()) / (_POOL * self.batch_samples)))
        batches: list[tuple[int, ...]] = []
        for members in _shared_out(order, self.samples[order], pools):
            members = members[np.argsort(-self.samples[members], kind="stable")]
            samples = self.samples[members]
            for count in range(math.ceil(int(samples.sum()) / self.batch_samples), 0, -1):
                parts = _shared_out(members, samples, count)
                if min(map(len, parts)) >= self.ranks:
                    break
            batches += [tuple(part.tolist()) for part in parts]
        return [batches[i] for i in rng.permutation(len(batches))]

    def from_place(self, place: Place) -> Iterator[Planned]:
        """This rank's share of all batches from ``place`` on, without end."""
        epoch, first = place
        while True:
            for number, batch in enumerate(self.epoch(epoch)):
                if number >= first:
                    yield Planned(Place(epoch, number), batch[self.rank :: self.ranks])
            epoch, first = epoch + 1, 0


def listed_samples(utterances: Sequence[Utterance]) -> NDArray[np.int64]:
    """Samples (N,) at 16 kHz of each utterance, as its header says. Raises ``ValueError`` naming a bad file."""

    def samples(utterance: Utterance) -> int:
        try:
            info = soundfile.info(str(utterance.path))
        except (soundfile.LibsndfileError, OSError) as error:
            reason = getattr(error, "error_string", None) or str(error)
            raise ValueError(f"{utterance.path}: cannot be read: {reason}") from None
        return int(info.frames * SAMPLE_RATE // info.samplerate)

    with ThreadPoolExecutor(8) as pool:
        return np.fromiter(pool.map(samples, utterances), dtype=np.int64, count=len(utterances))


def _shared_out(members: NDArray[np.int64], samples: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    """Members in ``count`` consecutive parts with about the same sum of samples each; a part may be empty."""
    middles = np.cumsum(samples) - samples / 2
    part = (middles * count / samples.sum()).astype(np.int64)
    return np.split(members, np.searchsorted(part, np.arange(1, count)))
