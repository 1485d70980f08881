"""Alignments: the time of each phone and word, matched to utterances and assigned to frames.

A frame takes the label of the interval that contains its centre (``spintok.frames.frame_center_seconds``); an interval
contains its start but not its end. Frames after the last interval and in gaps have no label; intervals after the last
frame are ignored.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spintok.frames import GRID, FrameGrid, frame_center_seconds

__all__ = [
    "PHONE_CLASSES",
    "SILENCE",
    "SILENCE_LABELS",
    "Alignment",
    "AlignmentError",
    "Interval",
    "Level",
    "characters",
    "frame_intervals",
    "intervals_at",
    "match",
    "merge",
]

Level = Literal["phones", "words"]
"""What an interval is."""

SILENCE = "SIL"
"""The label of an interval without text, which is how the Montreal Forced Aligner writes silence."""

_POSITIONS = ("", "_B", "_E", "_I", "_S")
SILENCE_LABELS = frozenset(
    {
        *(label + position for label in (SILENCE, "SPN", "NSN") for position in _POSITIONS),  # Kaldi
        "sil", "SP", "sp", "spn", "<eps>",  # the Montreal Forced Aligner and others
        "pau", "epi", "h#",  # TIMIT
        "<p:>",  # MAUS
        "[SIL]",  # Charsiu
    }
)  # fmt: skip
"""Labels of silence and noise in common dictionaries and aligners."""

PHONE_CLASSES: Mapping[str, frozenset[str]] = {
    "vowels": frozenset({"AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"}),
    "stops": frozenset({"B", "D", "G", "K", "P", "T"}),
    "fricatives": frozenset({"DH", "F", "HH", "S", "SH", "TH", "V", "Z", "ZH"}),
    "affricates": frozenset({"CH", "JH"}),
    "nasals": frozenset({"M", "N", "NG"}),
    "approximants": frozenset({"L", "R", "W", "Y"}),
}
"""The phones of English in ARPAbet without stress, by manner of articulation."""


class AlignmentError(ValueError):
    """An alignment file that cannot be used; the message names the file, the line and the cause."""


class Interval(NamedTuple):
    """A label from ``start`` to ``end``, in seconds."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class Alignment:
    """The phones and the words of one utterance, each sorted by time, without overlaps; either may be empty.

    ``aligner`` names the program or person that made the phones; None if unknown.
    """

    phones: tuple[Interval, ...] = ()
    words: tuple[Interval, ...] = ()
    aligner: str | None = None


def merge(first: Mapping[str, Alignment], second: Mapping[str, Alignment]) -> dict[str, Alignment]:
    """Return the phones and words of both; ``second`` takes precedence."""
    merged = dict(first)
    for key, alignment in second.items():
        before = merged.get(key, Alignment())
        aligner = (alignment if alignment.phones else before).aligner
        merged[key] = Alignment(alignment.phones or before.phones, alignment.words or before.words, aligner)
    return merged


def match(keys: Iterable[str], alignments: Mapping[str, Alignment]) -> dict[str, Alignment]:
    """Return the alignment of each key that has one, under the same key or under the same last part of the path.

    Last parts (after the last slash) are compared only if they are unique among the keys and among the alignments.
    Raises ``AlignmentError`` if no key has an alignment.
    """
    wanted = list(keys)
    named = _by_last_part(alignments)
    mine = _by_last_part(wanted)
    found = {}
    for key in wanted:
        last = key.rpartition("/")[2]
        name = key if key in alignments else named.get(last) if mine.get(last) is not None else None
        if name is not None:
            found[key] = alignments[name]
    if not found:
        raise AlignmentError(
            f"no utterance has an alignment: the speech has keys such as {next(iter(wanted), '(none)')!r}, the "
            f"alignments such as {next(iter(alignments), '(none)')!r}"
        )
    return found


def frame_intervals(intervals: Sequence[Interval], num_frames: int, grid: FrameGrid = GRID) -> NDArray[np.int64]:
    """Return the index of the interval that contains each frame's centre, (``num_frames``,); -1 if none does."""
    return intervals_at(intervals, frame_center_seconds(0, grid) + np.arange(num_frames) / grid.rate)


def intervals_at(intervals: Sequence[Interval], times: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the index of the interval that contains each time in seconds, (N,); -1 if none does."""
    if not intervals:
        return np.full(len(times), -1, dtype=np.int64)
    # A tolerance of a microsecond: 0.0125 + 30 * 0.02 must be in an interval that starts at 0.6125.
    starts = np.array([interval.start for interval in intervals]) - 1e-6
    ends = np.array([interval.end for interval in intervals]) - 1e-6
    index = np.searchsorted(starts, times, side="right") - 1
    return np.where((index >= 0) & (times < ends[index]), index, -1)


def characters(words: Iterable[Interval]) -> tuple[Interval, ...]:
    """Split words into characters, dividing each word's time evenly among its letters, digits and apostrophes.

    Letters become lower case and other characters are dropped: ``<unk>`` becomes ``unk``, ``--`` has no character.
    """
    found = []
    for word, start, end in words:
        letters = [letter for letter in word.lower() if letter.isalnum() or letter == "'"]
        step = (end - start) / max(len(letters), 1)
        found += [Interval(letter, start + i * step, start + (i + 1) * step) for i, letter in enumerate(letters)]
    return tuple(found)


def _by_last_part(keys: Iterable[str]) -> dict[str, str | None]:
    """Return the keys by their part after the last slash; None if several keys share it."""
    found: dict[str, str | None] = {}
    for key in keys:
        last = key.rpartition("/")[2]
        found[last] = None if last in found else key
    return found
