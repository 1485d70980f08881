"""How codes go with phones or characters: purity, normalised mutual information, boundaries.

Counts are over frames that have a label. Purity and PNMI: Hsu et al. 2021, "HuBERT", section IV-C. CNMI is PNMI over
characters instead of phones. Boundaries: Räsänen, Laine and Altosaar 2009, "An improved speech segmentation quality
measure: the R-value".
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spintok.data.alignments import SILENCE, Interval, frame_intervals
from spintok.frames import FRAME_RATE, frame_center_seconds
from spintok.stats.joint_counts import PairCounts, entropy
from spintok.tokens import Tokens

__all__ = [
    "SILENCE_LABELS",
    "Boundaries",
    "LabelCounts",
    "PhoneScore",
    "boundary_counts",
    "match_boundaries",
]

SILENCE_LABELS = frozenset({SILENCE, "sil", "SP", "sp", "SPN", "spn", "<eps>", "pau", "h#", "<p:>"})
"""Labels that stand for no speech, in the dictionaries and aligners in use."""

TOLERANCE = 0.02


@dataclass(frozen=True, eq=False)
class LabelCounts:
    """How many frames have each label and each code; those of the parts add up.

    Attributes:
        labels: the labels that occurred, sorted.
        pairs: (label, code) of each frame that has a label.
        frames: all frames, with a label or not.
    """

    labels: tuple[str, ...]
    pairs: PairCounts
    frames: float

    @classmethod
    def empty(cls, codebook_size: int) -> "LabelCounts":
        """No frames at all."""
        return cls((), PairCounts.empty(0, codebook_size), 0)

    @classmethod
    def of(cls, tokens: Tokens, intervals: Sequence[Interval]) -> "LabelCounts":
        """The counts of one utterance; the rule for frames without a label is that of ``frame_intervals``."""
        index = frame_intervals(intervals, tokens.num_frames)
        labels = sorted({interval.label for interval in intervals})
        number = {label: i for i, label in enumerate(labels)}
        of_interval = np.array([number[interval.label] for interval in intervals], dtype=np.int64)
        labelled = index >= 0
        pairs = PairCounts.of(of_interval[index[labelled]], tokens.codes[labelled], len(labels), tokens.codebook_size)
        return cls(tuple(labels), pairs, tokens.num_frames)

    @classmethod
    def summed(cls, parts: Iterable["LabelCounts"], codebook_size: int) -> "LabelCounts":
        """The sum of many, in one go."""
        found = list(parts)
        labels = sorted({label for part in found for label in part.labels})
        pairs = PairCounts.summed([part.relabelled(labels) for part in found], len(labels), codebook_size)
        return cls(tuple(labels), pairs, sum(part.frames for part in found))

    def __add__(self, other: "LabelCounts") -> "LabelCounts":
        if self.pairs.columns != other.pairs.columns:
            raise ValueError(f"counts of {self.pairs.columns} and {other.pairs.columns} codes cannot be added")
        return LabelCounts.summed([self, other], self.pairs.columns)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LabelCounts):
            return NotImplemented
        return (self.labels, self.pairs, self.frames) == (other.labels, other.pairs, other.frames)

    __hash__ = None  # type: ignore[assignment]

    def relabelled(self, labels: Sequence[str]) -> PairCounts:
        """The pairs with rows numbered as in ``labels``, which must be sorted and hold all of these."""
        number = {label: i for i, label in enumerate(labels)}
        rows = np.array([number[label] for label in self.labels], dtype=np.int64)
        keys = rows[self.pairs.row] * self.pairs.columns + self.pairs.column
        return PairCounts(len(labels), self.pairs.columns, keys, self.pairs.counts)

    def without(self, labels: Iterable[str]) -> "LabelCounts":
        """The counts without the frames of some labels."""
        gone = set(labels)
        keep = np.array([label not in gone for label in self.labels], dtype=bool)[self.pairs.row]
        pairs = PairCounts(self.pairs.rows, self.pairs.columns, self.pairs.keys[keep], self.pairs.counts[keep])
        return LabelCounts(self.labels, pairs, self.frames)

    def figures(self) -> dict[str, float]:
        """Purity and normalised mutual information.

        ``label_purity`` = sum over codes of max over labels of P(label, code): the share of the frames whose label
        is the most common one of their code. ``cluster_purity`` = sum over labels of max over codes of P(label,
        code). ``normalized_mutual_information`` = I(label; code) / H(label), PNMI when labels are phones; 0 when
        there is one label only, about which there is nothing to know. ``mutual_information`` and
        ``label_entropy`` in bits. ``labelled_share``: frames with a label. All are 0 without labelled frames.
        """
        total = max(self.pairs.total, 1)
        information, uncertainty = self.pairs.mutual_information(), entropy(self.pairs.row_counts)
        return {
            "label_purity": float(_largest(self.pairs.column, self.pairs).sum() / total),
            "cluster_purity": float(_largest(self.pairs.row, self.pairs).sum() / total),
            "normalized_mutual_information": information / uncertainty if uncertainty > 0 else 0.0,
            "mutual_information": information,
            "label_entropy": uncertainty,
            "labelled_share": self.pairs.total / self.frames if self.frames else 0.0,
        }

    def codes_of(self, labels: Iterable[str]) -> list[int]:
        """The codes most of whose frames have one of these labels: those of silence, for ``spintok stats``."""
        mine = self.without(set(self.labels) - set(labels)).pairs.column_counts
        return np.flatnonzero(2 * mine > self.pairs.column_counts).tolist()

    def table(self) -> dict[str, Any]:
        """Labels, and P(label | code) for each code that occurs: what a heat map shows."""
        shares: dict[str, dict[str, float]] = {}
        for row, column, count in zip(
            self.pairs.row.tolist(), self.pairs.column.tolist(), self.pairs.counts.tolist(), strict=True
        ):
            shares.setdefault(str(column), {})[self.labels[row]] = count / int(self.pairs.column_counts[column])
        return {"labels": list(self.labels), "codes": shares}


@dataclass(frozen=True)
class Boundaries:
    """Boundaries found among ``hypothesized`` and ``reference`` ones; those of the parts add up."""

    matched: float = 0
    hypothesized: float = 0
    reference: float = 0

    def __add__(self, other: "Boundaries") -> "Boundaries":
        return Boundaries(
            self.matched + other.matched,
            self.hypothesized + other.hypothesized,
            self.reference + other.reference,
        )

    def figures(self) -> dict[str, float]:
        """``precision``, ``recall``, ``f1``, ``r_value``; 0 where there is nothing to divide by.

        R-value (Räsänen et al. 2009, equations 6-8): with recall HR and over-segmentation OS = recall / precision -
        1, r1 = sqrt((1 - HR)^2 + OS^2), r2 = (HR - 1 - OS) / sqrt 2, R = 1 - (|r1| + |r2|) / 2. It is 1 for perfect
        boundaries, and unlike F1 it falls when boundaries are thrown in at random.
        """
        precision = self.matched / self.hypothesized if self.hypothesized else 0.0
        recall = self.matched / self.reference if self.reference else 0.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        if not self.reference:
            return {"precision": precision, "recall": recall, "f1": f1, "r_value": 0.0}
        # recall / precision, but also where nothing was matched.
        over = self.hypothesized / self.reference - 1
        distance = math.hypot(1 - recall, over)
        slant = (recall - 1 - over) / math.sqrt(2)
        return {"precision": precision, "recall": recall, "f1": f1, "r_value": 1 - (distance + abs(slant)) / 2}


class PhoneScore:
    """The figures of aligned utterances, whole or weighted: what ``spintok.evaluate.bootstrap`` resamples.

    Args:
        tokens: of each utterance, from one codebook.
        intervals: its phones, or its characters.
        prefix: of the names of the figures: "phone" or "character".
        tolerance: of boundaries, in seconds; None leaves them out.

    Figures: ``{prefix}_purity``, ``{prefix}_cluster_purity``, ``pnmi`` (``cnmi`` for characters), the same without
    labels of silence as ``..._speech``, and ``boundary_precision``, ``boundary_recall``, ``boundary_f1``,
    ``boundary_r_value``.
    """

    def __init__(
        self,
        tokens: Mapping[str, Tokens],
        intervals: Mapping[str, Sequence[Interval]],
        prefix: Literal["phone", "character"] = "phone",
        tolerance: float | None = TOLERANCE,
    ) -> None:
        self.units = tuple(key for key in tokens if key in intervals)
        if not self.units:
            raise ValueError("no utterance has both tokens and an alignment")
        self._prefix = prefix
        size = tokens[self.units[0]].codebook_size
        parts = [LabelCounts.of(tokens[key], intervals[key]) for key in self.units]
        self.counts = LabelCounts.summed(parts, size)
        keys = [part.relabelled(self.counts.labels).keys for part in parts]
        self._place = np.searchsorted(self.counts.pairs.keys, np.concatenate(keys))
        self._amount = np.concatenate([part.pairs.counts for part in parts])
        self._unit = np.repeat(np.arange(len(parts)), [part.pairs.counts.size for part in parts])
        self._frames = np.array([part.frames for part in parts])
        found = [boundary_counts(tokens[key], intervals[key], tolerance) for key in self.units] if tolerance else []
        self._boundaries = np.array([(b.matched, b.hypothesized, b.reference) for b in found]) if found else None

    def figures(self, weights: NDArray[np.float64] | None = None) -> dict[str, float]:
        """The figures when each unit counts as often as ``weights`` (N,) say; once each by default."""
        w = np.ones(len(self.units)) if weights is None else weights
        sums = np.bincount(self._place, weights=w[self._unit] * self._amount, minlength=self.counts.pairs.keys.size)
        pairs = PairCounts(self.counts.pairs.rows, self.counts.pairs.columns, self.counts.pairs.keys, sums)
        whole = LabelCounts(self.counts.labels, pairs, float(w @ self._frames))
        found = self._named(whole, "") | self._named(whole.without(SILENCE_LABELS), "_speech")
        found[f"{self._prefix}_labelled_share"] = whole.figures()["labelled_share"]
        if self._boundaries is not None:
            matched, mine, theirs = (w @ self._boundaries).tolist()
            rates = Boundaries(matched, mine, theirs).figures()
            found |= {f"boundary_{name}": value for name, value in rates.items()}
        return found

    def _named(self, counts: LabelCounts, suffix: str) -> dict[str, float]:
        figures = counts.figures()
        information = {"phone": "pnmi", "character": "cnmi"}[self._prefix]
        return {
            f"{self._prefix}_purity{suffix}": figures["label_purity"],
            f"{self._prefix}_cluster_purity{suffix}": figures["cluster_purity"],
            f"{information}{suffix}": figures["normalized_mutual_information"],
        }


def boundary_counts(tokens: Tokens, intervals: Sequence[Interval], tolerance: float = TOLERANCE) -> Boundaries:
    """Boundaries between runs of codes against boundaries between intervals, of one utterance.

    A boundary between runs lies midway between the centres of the two frames it parts. Reference boundaries are
    starts and ends of intervals, each time once; those before the first or after the last frame's centre, where no
    run can begin, are left out. ``tolerance`` in seconds, itself included.
    """
    starts = (np.cumsum(tokens.durations, dtype=np.int64) - tokens.durations)[1:]
    found = frame_center_seconds(0) + (starts - 0.5) / FRAME_RATE
    times = np.unique([round(time, 6) for _, start, end in intervals for time in (start, end)])
    first, last = frame_center_seconds(0), frame_center_seconds(max(tokens.num_frames - 1, 0))
    times = times[(times > first) & (times < last)]
    return Boundaries(match_boundaries(found, times, tolerance), found.size, times.size)


def match_boundaries(
    hypothesized: Sequence[float] | NDArray[np.float64],
    reference: Sequence[float] | NDArray[np.float64],
    tolerance: float = TOLERANCE,
) -> int:
    """The most pairs, each time in one pair at most, of rising times at most ``tolerance`` apart (a microsecond more).

    Taking from the left whatever fits is best when the tolerance is the same everywhere.
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


def _largest(group: NDArray[np.int64], pairs: PairCounts) -> NDArray[Any]:
    """The largest count of each group that occurs."""
    if group.size == 0:
        return np.zeros(0, dtype=np.int64)
    largest = np.zeros(int(group.max()) + 1, dtype=pairs.counts.dtype)
    np.maximum.at(largest, group, pairs.counts)
    return largest
