"""Bootstrap intervals of a metric, and of the difference between two tokenizers.

The units, speakers or utterances, are drawn with replacement as often as there are units, and the metric is computed
on each draw: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13. The draws depend only on the
seed and the number of units. Two tokenizers measured on the same utterances therefore get the same draws, and their
differences, draw by draw, are paired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["MIN_SPEAKERS", "Estimator", "Grouped", "Ratios", "difference", "interval", "jackknife", "replicates"]

Array = NDArray[np.float64]

MIN_SPEAKERS = 8
"""With fewer speakers no interval is given: a bootstrap over so few units is far too narrow."""


class Estimator(Protocol):
    """Metrics that can be computed with any weight on each unit, such as an utterance or a speaker."""

    @property
    def units(self) -> tuple[str, ...]:
        """The names of the N units."""

    def values(self, weights: Array | None = None) -> dict[str, float]:
        """The metrics with each unit counted ``weights`` (N,) times; None counts each once."""


@dataclass(frozen=True, eq=False)
class Ratios:
    """Metrics that are ratios of sums over units.

    Attributes:
        units: the N units of the sums.
        parts: numerators (N,) and denominators (N,) of each metric; a mean has ones as denominators. A metric is 0
            if its denominators sum to 0.
    """

    units: tuple[str, ...]
    parts: Mapping[str, tuple[ArrayLike, ArrayLike]]

    def values(self, weights: Array | None = None) -> dict[str, float]:
        """Each metric: the weighted sum of its numerators over that of its denominators."""
        w = np.ones(len(self.units)) if weights is None else weights
        sums = {name: (float(w @ np.asarray(a)), float(w @ np.asarray(b))) for name, (a, b) in self.parts.items()}
        return {name: above / below if below else 0.0 for name, (above, below) in sums.items()}


@dataclass(frozen=True, eq=False)
class Grouped:
    """An estimator whose units are groups of the units of another one: the utterances of each speaker, for example.

    Utterances of one speaker resemble each other, so intervals over utterances are too narrow for new speakers.

    Attributes:
        estimator: the estimator over single units.
        groups: the group of each of its units.
    """

    estimator: Estimator
    groups: Sequence[str]

    @property
    def units(self) -> tuple[str, ...]:
        """The groups, sorted."""
        return tuple(sorted(set(self.groups)))

    def values(self, weights: Array | None = None) -> dict[str, float]:
        """The values with each group counted ``weights`` times."""
        if weights is None:
            return self.estimator.values()
        return self.estimator.values(weights[self._index])

    def sums(self, numbers: ArrayLike) -> Array:
        """The sum of ``numbers``, one per unit of the estimator, over each group."""
        found: Array = np.zeros(len(self.units))
        np.add.at(found, self._index, np.asarray(numbers, dtype=np.float64))
        return found

    @cached_property
    def _index(self) -> NDArray[np.int64]:
        number = {group: i for i, group in enumerate(self.units)}
        return np.array([number[group] for group in self.groups], dtype=np.int64)


def jackknife(estimator: Estimator, sizes: ArrayLike, blocks: int = 200) -> dict[str, float]:
    """Each metric with its bias of order 1 / N removed by the jackknife.

    Entropies, and with them mutual information, are biased in small samples: plug-in PNMI is too high, more so with
    larger codebooks. The jackknife needs no independent frames, unlike the correction of Miller (1955), because it
    deletes whole units. For units of different sizes: Busing, Meijer and van der Leeden 1999, "Delete-m jackknife for
    unequal m", equation 6.

    Args:
        estimator: an estimator with at least two units.
        sizes: the number of observations (frames, for example) of each unit.
        blocks: more units than this are deleted in so many blocks, which bounds the time.
    """
    number = len(estimator.units)
    if number < 2:
        raise ValueError(f"the jackknife needs at least 2 units, got {number}")
    block = np.arange(number) % blocks
    count = min(number, blocks)
    shares = np.zeros(count)
    np.add.at(shares, block, np.asarray(sizes, dtype=np.float64))
    shares /= shares.sum()
    corrected = {name: count * value for name, value in estimator.values().items()}
    for deleted in range(count):
        for name, value in estimator.values((block != deleted).astype(np.float64)).items():
            corrected[name] -= (1 - shares[deleted]) * value
    return corrected


def replicates(estimator: Estimator, count: int, seed: int = 0) -> dict[str, Array]:
    """Each metric on ``count`` draws of the units, (count,). With one unit all replicates are equal."""
    if count < 1:
        raise ValueError(f"the bootstrap needs at least 1 draw, got {count}")
    number = len(estimator.units)
    rng = np.random.default_rng([seed, number])
    found: dict[str, list[float]] = {}
    for _ in range(count):
        weights = np.bincount(rng.integers(number, size=number), minlength=number).astype(np.float64)
        for name, value in estimator.values(weights).items():
            found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}


def interval(draws: Sequence[float] | Array, value: float, level: float = 0.95) -> tuple[float, float]:
    """The central interval that holds ``level`` of the replicates, shifted so that their mean is ``value``.

    Some metrics are larger in every replicate than in the data: an utterance that is drawn twice agrees with itself,
    which adds mutual information. That offset is a property of the resampling, not of the data, so it is removed.
    """
    low, high = np.quantile(_centered(draws, value), [(1 - level) / 2, (1 + level) / 2]).tolist()
    return low, high


def difference(
    first: Sequence[float] | Array, second: Sequence[float] | Array, value: float, level: float = 0.95
) -> dict[str, float]:
    """The interval of second - first, which is ``value``, from paired replicates, and a two-sided ``p``.

    The interval is that of ``interval``. ``p`` is twice the smaller share of the replicates on one side of zero (those
    equal to zero count on both sides), at most 1 and at least 2 / (draws + 1).
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise ValueError(f"paired draws come in equal numbers, got {a.shape} and {b.shape}")
    apart = _centered(b - a, value)
    low, high = interval(apart, value, level)
    tail = (min(np.count_nonzero(apart <= 0), np.count_nonzero(apart >= 0)) + 1) / (apart.size + 1)
    return {"low": low, "high": high, "p": min(1.0, 2 * float(tail))}


def _centered(draws: Sequence[float] | Array, value: float) -> Array:
    found = np.asarray(draws, dtype=np.float64)
    centered: Array = found - found.mean() + value
    return centered
