"""Which utterances form each batch of each epoch: a pure function of the seed, so a run can resume at any batch."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spintok.data.audio import declared_samples
from spintok.data.manifest import Utterance
from spintok.frames import SAMPLE_RATE
from spintok.train.recipe_sections import DataConfig

__all__ = ["BatchPlan", "BatchSpec", "Position", "samples_from_headers"]

# Utterances of this many batches are sorted by length together: little padding, yet batches of mixed utterances.
_POOL = 32


class Position(NamedTuple):
    """A position in the data: batch number ``batch`` of ``epoch``."""

    epoch: int = 0
    batch: int = 0


class BatchSpec(NamedTuple):
    """A batch to prepare: its position, and the rows of this process's utterances in the list of utterances."""

    position: Position
    rows: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """Batches of similar duration in random order.

    Attributes:
        samples: (N,) number of samples of each utterance that enter a batch; 0 skips the utterance.
        batch_samples: samples per batch, summed over all processes.
        seed: seeds the order.
        rank, world_size: each batch is divided evenly among the processes.
    """

    samples: NDArray[np.int64]
    batch_samples: int
    seed: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        count = int((self.samples > 0).sum())
        if count < self.world_size:
            raise ValueError(
                f"{count} utterances that are long enough cannot be divided among {self.world_size} processes"
            )

    @classmethod
    def of(
        cls, samples: NDArray[np.int64], data: DataConfig, seed: int, rank: int = 0, world_size: int = 1
    ) -> "BatchPlan":
        """The plan for utterances of ``samples`` (N,) samples: short ones are skipped, long ones count as crops.

        Raises:
            ValueError: none is long enough.
        """
        if samples.max(initial=0) < data.min_seconds * SAMPLE_RATE:
            raise ValueError(f"no utterance to train on is as long as data.min_seconds, {data.min_seconds} s")
        used = np.where(samples >= data.min_seconds * SAMPLE_RATE, samples, 0)
        used = np.minimum(used, round(data.max_seconds * SAMPLE_RATE))
        return cls(used, round(data.seconds * SAMPLE_RATE), seed, rank, world_size)

    def epoch(self, epoch: int) -> list[tuple[int, ...]]:
        """All batches of an epoch, of all processes, in order; each utterance occurs once.

        The batches of a pool have about the same duration: up to ``batch_samples``, or one utterance more.
        """
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(np.flatnonzero(self.samples))
        pools = max(1, round(int(self.samples.sum()) / (_POOL * self.batch_samples)))
        batches: list[tuple[int, ...]] = []
        for members in _split_evenly(order, self.samples[order], pools):
            members = members[np.argsort(-self.samples[members], kind="stable")]
            samples = self.samples[members]
            for count in range(math.ceil(int(samples.sum()) / self.batch_samples), 0, -1):
                parts = _split_evenly(members, samples, count)
                if min(map(len, parts)) >= self.world_size:
                    break
            batches += [tuple(part.tolist()) for part in parts]
        return [batches[i] for i in rng.permutation(len(batches))]

    def specs_from(self, position: Position) -> Iterator[BatchSpec]:
        """This process's share of every batch from ``position`` on, without end."""
        epoch, first = position
        while True:
            for number, batch in enumerate(self.epoch(epoch)):
                if number >= first:
                    yield BatchSpec(Position(epoch, number), batch[self.rank :: self.world_size])
            epoch, first = epoch + 1, 0


def samples_from_headers(utterances: Sequence[Utterance]) -> NDArray[np.int64]:
    """The length (N,) of each utterance in samples at 16 kHz, from the file headers.

    Raises:
        AudioError: a file cannot be read; the message names it.
    """

    paths = [utterance.path for utterance in utterances]
    with ThreadPoolExecutor(8) as pool:
        return np.fromiter(pool.map(declared_samples, paths), dtype=np.int64, count=len(paths))


def _split_evenly(members: NDArray[np.int64], samples: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    """Split members into ``count`` consecutive parts with about equal sums of samples; a part may be empty."""
    middles = np.cumsum(samples) - samples / 2
    part = (middles * count / samples.sum()).astype(np.int64)
    return np.split(members, np.searchsorted(part, np.arange(1, count)))
