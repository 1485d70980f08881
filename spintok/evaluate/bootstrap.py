"""Intervals of figures, and of the difference between two tokenizers, by the bootstrap over utterances or speakers.

Utterances (or speakers) are drawn with replacement as many times as there are, and the figures computed anew: Efron
and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13. The draws depend on the
seed and the number of units only, so two tokenizers measured on the same utterances are drawn alike, and the
differences of their figures, draw by draw, are paired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Measured", "Ratios", "difference", "interval", "replicates"]

Array = NDArray[np.float64]


class Measured(Protocol):
    """Figures that can be computed when each unit (an utterance, a speaker) counts any number of times."""

    @property
    def units(self) -> tuple[str, ...]:
        """What is drawn."""

    def figures(self, weights: Array | None = None) -> dict[str, float]:
        """The figures when each unit counts ``weights`` (N,) times; once each by default."""


@dataclass(frozen=True, eq=False)
class Ratios:
    """Figures that are ratios of sums over units.

    Attributes:
        units: what the sums are over, N of them.
        parts: numerator (N,) and denominator (N,) of each figure; a mean has a denominator of ones. A figure is 0
            when its denominator is.
    """

    units: tuple[str, ...]
    parts: Mapping[str, tuple[ArrayLike, ArrayLike]]

    def figures(self, weights: Array | None = None) -> dict[str, float]:
        """Each figure: the weighted sum of its numerators over that of its denominators."""
        w = np.ones(len(self.units)) if weights is None else weights
        sums = {name: (float(w @ np.asarray(a)), float(w @ np.asarray(b))) for name, (a, b) in self.parts.items()}
        return {name: above / below if below else 0.0 for name, (above, below) in sums.items()}


def replicates(measured: Measured, count: int, seed: int = 0) -> dict[str, Array]:
    """Each figure under ``count`` draws of the units, (count,). With one unit all draws are alike."""
    if count < 1:
        raise ValueError(f"the bootstrap needs at least 1 draw, got {count}")
    number = len(measured.units)
    rng = np.random.default_rng([seed, number])
    found: dict[str, list[float]] = {}
    for _ in range(count):
        weights = np.bincount(rng.integers(number, size=number), minlength=number).astype(np.float64)
        for name, value in measured.figures(weights).items():
            found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}


def interval(draws: Sequence[float] | Array, value: float, level: float = 0.95) -> tuple[float, float]:
    """The central interval that holds ``level`` of the draws, moved so that their mean is ``value``.

    Some figures are greater in every draw than in the data: an utterance drawn twice agrees with itself, which adds
    mutual information. The interval says how far the figure would spread with other utterances, so that offset,
    which says something of the draws only, is taken out.
    """
    low, high = np.quantile(_centered(draws, value), [(1 - level) / 2, (1 + level) / 2]).tolist()
    return low, high


def difference(
    first: Sequence[float] | Array, second: Sequence[float] | Array, value: float, level: float = 0.95
) -> dict[str, float]:
    """The interval of second - first, which is ``value``, from paired draws, and ``p``: how surely they differ.

    The interval is that of ``interval``. ``p`` is twice the smaller share of its draws on one side of zero (those at
    zero on both), at most 1: two-sided, and no smaller than 2 / (draws + 1).
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
