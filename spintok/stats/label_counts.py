"""Counts of labels and codes: which phones (or characters) share their frames with which codes.

Only frames that have a label are counted. Purity and PNMI: Hsu et al. 2021, "HuBERT", section IV-C.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spintok.data.alignments import Interval, frame_intervals
from spintok.stats.joint_counts import PairCounts, entropy
from spintok.tokens import Tokens

__all__ = ["LabelCounts"]


@dataclass(frozen=True, eq=False)
class LabelCounts:
    """The number of frames with each label and code. Counts of parts add up.

    Attributes:
        labels: the labels that occur, sorted.
        pairs: (label, code) of each frame that has a label.
        frames: the number of all frames, with a label or without.
    """

    labels: tuple[str, ...]
    pairs: PairCounts
    frames: float

    @classmethod
    def empty(cls, codebook_size: int) -> "LabelCounts":
        """The counts of no frames."""
        return cls((), PairCounts.empty(0, codebook_size), 0)

    @classmethod
    def of(cls, tokens: Tokens, intervals: Sequence[Interval]) -> "LabelCounts":
        """The counts of one utterance; ``frame_intervals`` decides which frames have a label."""
        index = frame_intervals(intervals, tokens.num_frames)
        labels = sorted({interval.label for interval in intervals})
        number = {label: i for i, label in enumerate(labels)}
        of_interval = np.array([number[interval.label] for interval in intervals], dtype=np.int64)
        labelled = index >= 0
        pairs = PairCounts.of(of_interval[index[labelled]], tokens.codes[labelled], len(labels), tokens.codebook_size)
        return cls(tuple(labels), pairs, tokens.num_frames)

    @classmethod
    def summed(cls, parts: Iterable["LabelCounts"], codebook_size: int) -> "LabelCounts":
        """The sum of many counts."""
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
        """The pairs with rows numbered as in ``labels``, which must be sorted and contain all of these labels."""
        number = {label: i for i, label in enumerate(labels)}
        rows = np.array([number[label] for label in self.labels], dtype=np.int64)
        keys = rows[self.pairs.row] * self.pairs.columns + self.pairs.column
        return PairCounts(len(labels), self.pairs.columns, keys, self.pairs.counts)

    def without(self, labels: Iterable[str]) -> "LabelCounts":
        """The counts without the frames that have one of these labels."""
        gone = set(labels)
        keep = np.array([label not in gone for label in self.labels], dtype=bool)[self.pairs.row]
        pairs = PairCounts(self.pairs.rows, self.pairs.columns, self.pairs.keys[keep], self.pairs.counts[keep])
        return LabelCounts(self.labels, pairs, self.frames)

    def metrics(self) -> dict[str, float]:
        """Purity and normalised mutual information.

        ``label_purity`` = sum over codes of max over labels of P(label, code): the share of the frames whose label
        is the most common one of their code. ``cluster_purity`` = sum over labels of max over codes of P(label,
        code). ``normalized_mutual_information`` = I(label; code) / H(label), PNMI when labels are phones; 0 if
        there is only one label. ``mutual_information`` and ``label_entropy`` are in bits. ``labelled_share``: the
        share of the frames that have a label. All are 0 without labelled frames.
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
        """The codes with more than half of their labelled frames in these labels: for labels of silence, its codes."""
        mine = self.without(set(self.labels) - set(labels)).pairs.column_counts
        return np.flatnonzero(2 * mine > self.pairs.column_counts).tolist()

    def table(self) -> dict[str, Any]:
        """The labels, and P(label | code) of each code that occurs, as plain values that JSON holds."""
        shares: dict[str, dict[str, float]] = {}
        for row, column, count in zip(
            self.pairs.row.tolist(), self.pairs.column.tolist(), self.pairs.counts.tolist(), strict=True
        ):
            shares.setdefault(str(column), {})[self.labels[row]] = count / int(self.pairs.column_counts[column])
        return {"labels": list(self.labels), "codes": shares}


def _largest(group: NDArray[np.int64], pairs: PairCounts) -> NDArray[Any]:
    """The largest count of each group, 0 for groups without a count."""
    if group.size == 0:
        return np.zeros(0, dtype=np.int64)
    largest = np.zeros(int(group.max()) + 1, dtype=pairs.counts.dtype)
    np.maximum.at(largest, group, pairs.counts)
    return largest
