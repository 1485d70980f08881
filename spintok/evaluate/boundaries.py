"""Boundaries between runs of codes, compared with boundaries between phones.

Räsänen, Laine and Altosaar 2009, "An improved speech segmentation quality measure: the R-value".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spintok.data.labels.alignments import Interval
from spintok.frames import frame_center_seconds
from spintok.tokens import Tokens

__all__ = ["TOLERANCE", "Boundaries", "boundary_counts", "match_boundaries"]

TOLERANCE = 0.02
"""The usual tolerance, in seconds."""


@dataclass(frozen=True)
class Boundaries:
    """Numbers of boundaries: matched, hypothesized and reference ones. Counts of parts add up.

    They are floats because the bootstrap weights them.
    """

    matched: float = 0
    hypothesized: float = 0
    reference: float = 0

    def __add__(self, other: "Boundaries") -> "Boundaries":
        return Boundaries(
            self.matched + other.matched,
            self.hypothesized + other.hypothesized,
            self.reference + other.reference,
        )

    def metrics(self) -> dict[str, float]:
        """``precision``, ``recall``, ``f1`` and ``r_value``; 0 where the denominator is 0.

        R-value (Räsänen et al. 2009, equations 6-8): with recall HR and over-segmentation OS = recall / precision -
        1, r1 = sqrt((1 - HR)^2 + OS^2), r2 = (HR - 1 - OS) / sqrt 2, R = 1 - (|r1| + |r2|) / 2. It is 1 for perfect
        boundaries. Unlike F1 it falls when random boundaries are added.
        """
        precision = self.matched / self.hypothesized if self.hypothesized else 0.0
        recall = self.matched / self.reference if self.reference else 0.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        if not self.reference:
            return {"precision": precision, "recall": recall, "f1": f1, "r_value": 0.0}
        # recall / precision, written so that it is defined when nothing matches.
        over = self.hypothesized / self.reference - 1
        distance = math.hypot(1 - recall, over)
        slant = (recall - 1 - over) / math.sqrt(2)
        return {"precision": precision, "recall": recall, "f1": f1, "r_value": 1 - (distance + abs(slant)) / 2}


def boundary_counts(tokens: Tokens, intervals: Sequence[Interval], tolerance: float = TOLERANCE) -> Boundaries:
    """Compare the boundaries of one utterance's runs of codes with those of its intervals.

    A boundary between two runs lies midway between the centres of the frames on either side. The reference boundaries
    are the starts and ends of the intervals, each time once. Those before the first frame's centre or after the last
    one's are left out, because no run can begin there. ``tolerance`` is in seconds and inclusive.
    """
    starts = (np.cumsum(tokens.durations, dtype=np.int64) - tokens.durations)[1:]
    grid = tokens.grid
    found = frame_center_seconds(0, grid) + (starts - 0.5) / grid.rate
    times = np.unique([round(time, 6) for _, start, end in intervals for time in (start, end)])
    first, last = frame_center_seconds(0, grid), frame_center_seconds(max(tokens.num_frames - 1, 0), grid)
    times = times[(times > first) & (times < last)]
    return Boundaries(match_boundaries(found, times, tolerance), found.size, times.size)


def match_boundaries(
    hypothesized: Sequence[float] | NDArray[np.float64],
    reference: Sequence[float] | NDArray[np.float64],
    tolerance: float = TOLERANCE,
) -> int:
    """The largest number of disjoint pairs of times at most ``tolerance`` apart (plus a microsecond).

    Both sequences rise. Matching greedily from the left is optimal, because the tolerance is the same everywhere.
    """
    mine, theirs = list(hypothesized), list(reference)
    i = j = pairs = 0
    while i < len(mine) and j < len(theirs):
        apart = mine[i] - theirs[j]
        if abs(apart) <= tolerance + 1e-6:
            pairs, i, j = pairs + 1, i + 1, j + 1
        elif apart < 0:
            i += 1
        else:
            j += 1
    return pairs
