"""Counts of labels and codes: which phones (or characters) share their frames with which codes.

Only frames that have a label are counted. Purity and PNMI: Hsu et al. 2021, "HuBERT", section IV-C.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spintok.data.labels.alignments import Interval, frame_intervals, intervals_at
from spintok.stats.entropy import entropy
from spintok.stats.joint_counts import JointCounts
from spintok.tokens import Tokens

__all__ = ["LabelCounts"]


@dataclass(frozen=True, eq=False)
class LabelCounts:
    """The number of frames with each label and code. Counts of parts add up.

    Attributes:
        labels: the labels that occur, sorted.
        joint: (label, code) of each frame that has a label.
        frames: the number of all frames, with a label or without.
    """

    labels: tuple[str, ...]
    joint: JointCounts
    frames: float

    @classmethod
    def empty(cls, codebook_size: int) -> "LabelCounts":
        """The counts of no frames."""
        return cls((), JointCounts.empty(0, codebook_size), 0)

    @classmethod
    def of(cls, tokens: Tokens, intervals: Sequence[Interval]) -> "LabelCounts":
        """The counts of one utterance; ``frame_intervals`` decides which frames have a label."""
        index = frame_intervals(intervals, tokens.num_frames, tokens.grid)
        return cls._counted(tokens.codes, index, intervals, tokens.codebook_size)

    @classmethod
    def of_10ms(cls, tokens: Tokens, intervals: Sequence[Interval]) -> "LabelCounts":
        """The counts of one utterance with two labels per frame, as published evaluation scripts count.

        Labels are taken every 10 ms, in the middle of each step, and at 50 frames a second the code of frame i is
        repeated for the labels 2i and 2i + 1. Unlike ``of``, this ignores that the centre of a frame is 12.5 ms after
        its first sample. Raises ``ValueError`` for frames that are not whole steps of 10 ms.
        """
        if 100 % tokens.frame_rate:
            raise ValueError(f"labels every 10 ms do not fit {tokens.frame_rate} frames a second")
        codes = np.repeat(tokens.codes, 100 // tokens.frame_rate)
        index = intervals_at(intervals, (np.arange(len(codes)) + 0.5) / 100)
        return cls._counted(codes, index, intervals, tokens.codebook_size)

    @classmethod
    def _counted(
        cls, codes: NDArray[Any], index: NDArray[np.int64], intervals: Sequence[Interval], codebook_size: int
    ) -> "LabelCounts":
        labels = sorted({interval.label for interval in intervals})
        number = {label: i for i, label in enumerate(labels)}
        of_interval = np.array([number[interval.label] for interval in intervals], dtype=np.int64)
        labelled = index >= 0
        joint = JointCounts.of(of_interval[index[labelled]], codes[labelled], len(labels), codebook_size)
        return cls(tuple(labels), joint, len(codes))

    @classmethod
    def summed(cls, parts: Iterable["LabelCounts"], codebook_size: int) -> "LabelCounts":
        """The sum of many counts."""
        found = list(parts)
        labels = sorted({label for part in found for label in part.labels})
        joint = JointCounts.summed([part.relabelled(labels) for part in found], len(labels), codebook_size)
        return cls(tuple(labels), joint, sum(part.frames for part in found))

    def __add__(self, other: "LabelCounts") -> "LabelCounts":
        if self.joint.columns != other.joint.columns:
            raise ValueError(f"counts of {self.joint.columns} and {other.joint.columns} codes cannot be added")
        return LabelCounts.summed([self, other], self.joint.columns)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LabelCounts):
            return NotImplemented
        return (self.labels, self.joint, self.frames) == (other.labels, other.joint, other.frames)

    __hash__ = None  # type: ignore[assignment]

    def relabelled(self, labels: Sequence[str]) -> JointCounts:
        """The joint counts with rows numbered as in ``labels``, which must be sorted and contain these."""
        number = {label: i for i, label in enumerate(labels)}
        rows = np.array([number[label] for label in self.labels], dtype=np.int64)
        keys = rows[self.joint.row] * self.joint.columns + self.joint.column
        return JointCounts(len(labels), self.joint.columns, keys, self.joint.counts)

    def without(self, labels: Iterable[str]) -> "LabelCounts":
        """The counts without the frames that have one of these labels."""
        gone = set(labels)
        keep = np.array([label not in gone for label in self.labels], dtype=bool)[self.joint.row]
        joint = JointCounts(self.joint.rows, self.joint.columns, self.joint.keys[keep], self.joint.counts[keep])
        return LabelCounts(self.labels, joint, self.frames)

    def metrics(self) -> dict[str, float]:
        """Purity and normalised mutual information.

        ``label_purity`` = sum over codes of max over labels of P(label, code): the share of the frames whose label
        is the most common one of their code. ``cluster_purity`` = sum over labels of max over codes of P(label,
        code). ``normalized_mutual_information`` = I(label; code) / H(label), PNMI when labels are phones; 0 if
        there is only one label. ``mutual_information`` and ``label_entropy`` are in bits. ``labelled_share``: the
        share of the frames that have a label. All are 0 without labelled frames.
        """
        total = max(self.joint.total, 1)
        information, uncertainty = self.joint.mutual_information(), entropy(self.joint.row_counts)
        return {
            "label_purity": float(_largest(self.joint.column, self.joint).sum() / total),
            "cluster_purity": float(_largest(self.joint.row, self.joint).sum() / total),
            "normalized_mutual_information": information / uncertainty if uncertainty > 0 else 0.0,
            "mutual_information": information,
            "label_entropy": uncertainty,
            "labelled_share": self.joint.total / self.frames if self.frames else 0.0,
        }

    def codes_of(self, labels: Iterable[str]) -> list[int]:
        """The codes with more than half of their labelled frames in these labels: for labels of silence, its codes."""
        mine = self.without(set(self.labels) - set(labels)).joint.column_counts
        return np.flatnonzero(2 * mine > self.joint.column_counts).tolist()

    def recalled(self) -> dict[str, tuple[float, float]]:
        """For each label, how many of its frames have a code whose most common label it is, and how many it has.

        The first numbers sum to ``label_purity`` times all labelled frames. Of equally common labels the first counts.
        """
        # By code and then from the least to the most common label, so the last of each code is its own.
        order = np.lexsort((-self.joint.row, self.joint.counts, self.joint.column))
        last = np.append(np.diff(self.joint.column[order]) != 0, True) if len(order) else np.zeros(0, dtype=bool)
        chosen = order[last]
        found = np.bincount(self.joint.row[chosen], self.joint.counts[chosen], len(self.labels))
        totals = self.joint.row_counts
        return {label: (float(found[i]), float(totals[i])) for i, label in enumerate(self.labels)}

    def table(self) -> dict[str, Any]:
        """The labels, and P(label | code) of each code that occurs, as plain values that JSON holds."""
        shares: dict[str, dict[str, float]] = {}
        for row, column, count in zip(
            self.joint.row.tolist(), self.joint.column.tolist(), self.joint.counts.tolist(), strict=True
        ):
            shares.setdefault(str(column), {})[self.labels[row]] = count / int(self.joint.column_counts[column])
        return {"labels": list(self.labels), "codes": shares}


def _largest(group: NDArray[np.int64], joint: JointCounts) -> NDArray[Any]:
    """The largest count of each group, 0 for groups without a count."""
    if group.size == 0:
        return np.zeros(0, dtype=np.int64)
    largest = np.zeros(int(group.max()) + 1, dtype=joint.counts.dtype)
    np.maximum.at(largest, group, joint.counts)
    return largest
