"""P(phone | code) as an image with a row per phone and a column per code, sorted into a staircase."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spintok.data.labels.alignments import SILENCE_LABELS
from spintok.report.charts import Table
from spintok.report.page import percent
from spintok.stats.label_counts import LabelCounts

__all__ = ["MOST_CODES", "HeatMap", "heat_map", "sorted_phones"]

MOST_CODES = 2000
"""Most columns, for the most frequent codes. More would be wider than a browser can draw."""

# ARPAbet by manner of articulation, from open to closed. Stress digits are ignored.
_MANNERS = (
    "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW",
    "Y W R L",
    "M N NG",
    "HH V DH Z ZH F TH S SH",
    "JH CH",
    "B D G P T K",
)


@dataclass(frozen=True, eq=False)
class HeatMap:
    """P(phone | code).

    Attributes:
        phones: the phone of each row.
        codes: the code of each column.
        share: P(phone | code), (phones, codes); each column sums to 1.
        frames: the number of labelled frames of each column, (codes,).
        left_out: the number of codes with labelled frames that are beyond MOST_CODES.
    """

    phones: tuple[str, ...]
    codes: tuple[int, ...]
    share: NDArray[np.float64]
    frames: NDArray[np.int64]
    left_out: int

    @property
    def main(self) -> list[int]:
        """The row of the most probable phone of each column."""
        return [int(row) for row in self.share.argmax(axis=0)]

    @property
    def main_phones(self) -> dict[int, str]:
        """The most probable phone of each code."""
        return {code: self.phones[row] for code, row in zip(self.codes, self.main, strict=True)}

    @property
    def data(self) -> dict[str, Any]:
        """What the script draws: shares in steps of 1 / 255, row by row."""
        image = np.rint(self.share * 255).astype(np.uint8)
        return {
            "phones": self.phones,
            "codes": self.codes,
            "frames": self.frames.tolist(),
            "share": base64.b64encode(image.tobytes()).decode(),
        }

    @property
    def table(self) -> Table:
        """The most probable phones of each code."""
        rows = []
        for column, code in enumerate(self.codes):
            order = np.argsort(-self.share[:, column], kind="stable")[:3]
            best = [f"{self.phones[row]} {percent(float(self.share[row, column]))}" for row in order.tolist()]
            rows.append((code, *best, *[""] * (3 - len(best)), f"{self.frames[column]:,}"))
        return Table.of(("code", "main phone", "second", "third", "labelled frames"), rows, chips=(0,))


def heat_map(labels: LabelCounts) -> HeatMap:
    """The heat map of counts. Raises ``ValueError`` if no frame has a label."""
    if labels.joint.total == 0:
        raise ValueError("no frame of these tokens has a phone: the alignments are empty, or at other times")
    present = [label for row, label in enumerate(labels.labels) if labels.joint.row_counts[row] > 0]
    phones = sorted_phones(present)
    frames = labels.joint.column_counts
    known = np.flatnonzero(frames)
    kept = np.sort(known[np.argsort(-frames[known], kind="stable")][:MOST_CODES])
    row_of = {label: row for row, label in enumerate(phones)}
    place = {int(code): column for column, code in enumerate(kept)}
    share = np.zeros((len(phones), len(kept)))
    entries = zip(labels.joint.row.tolist(), labels.joint.column.tolist(), labels.joint.counts.tolist(), strict=True)
    for row, code, count in entries:
        if code in place:
            share[row_of[labels.labels[row]], place[code]] = count / frames[code]
    best = share.argmax(axis=0)
    order = np.lexsort((kept, -share[best, np.arange(len(kept))], best))
    return HeatMap(
        tuple(phones),
        tuple(kept[order].tolist()),
        share[:, order],
        frames[kept][order],
        len(known) - len(kept),
    )


def sorted_phones(labels: Sequence[str]) -> list[str]:
    """Sort labels: ARPAbet by manner of articulation, then other labels by name, then silence."""
    known = [phone for manner in _MANNERS for phone in manner.split()]

    def place(label: str) -> tuple[int, int, str]:
        base = label.rstrip("012")
        if label in SILENCE_LABELS:
            return 2, 0, label
        return (0, known.index(base), label) if base in known else (1, 0, label)

    return sorted(labels, key=place)
