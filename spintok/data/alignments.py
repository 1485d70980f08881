"""Alignments: which phone and which word is said when, read from what aligners write, and laid over frames.

Frames take the label of the interval that holds their centre (``spintok.frames.frame_center_seconds``); an interval
holds its start and not its end. Frames past the last interval, and those in gaps, have no label; intervals past the
last frame count for nothing.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spintok.data.textgrid import TextGridError, read_textgrid
from spintok.frames import FRAME_RATE, frame_center_seconds

__all__ = [
    "SILENCE",
    "SILENCE_LABELS",
    "Alignment",
    "AlignmentError",
    "Interval",
    "characters",
    "frame_intervals",
    "match",
    "merge",
    "read_alignments",
]

Level = Literal["phones", "words"]

SILENCE = "SIL"
"""The label of an interval that has none, as the Montreal Forced Aligner writes silence."""

SILENCE_LABELS = frozenset({SILENCE, "sil", "SP", "sp", "SPN", "spn", "<eps>", "pau", "h#", "<p:>"})
"""Labels of silence and noise in common dictionaries and aligners."""

_TIERS: Mapping[Level, tuple[str, ...]] = {
    "phones": ("phones", "phone", "phonemes", "phoneme", "phn", "segments", "mau"),
    "words": ("words", "word", "wrd", "ort-mau"),
}
_LABELS_A_SECOND = 100


class AlignmentError(ValueError):
    """A file of alignments that cannot be used; the message names the file, the line and the cause."""


class Interval(NamedTuple):
    """A label from ``start`` to ``end``, in seconds."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class Alignment:
    """The phones and the words of one utterance, each in the order of time, not overlapping; either may be empty."""

    phones: tuple[Interval, ...] = ()
    words: tuple[Interval, ...] = ()


def read_alignments(source: str | os.PathLike[str], level: Level = "phones") -> dict[str, Alignment]:
    """The alignments of a file or a folder, by utterance.

    Args:
        source: a ``.TextGrid`` file (long or short; its name is the utterance), a folder of them at any depth (the
            path below it is the utterance), ``.ctm`` (``utterance channel start duration label``), ``.tsv``
            (``utterance``, tab, a label each 10 ms, separated by commas) or JSON lines (``{"id": ..., "phones":
            [[label, start, end], ...], "words": [...]}``).
        level: what the intervals of a ``.ctm`` or ``.tsv`` are. TextGrid and JSON name theirs, and a TextGrid with
            a single tier holds ``level``. Equal labels in a row are one interval in a ``.tsv``, which cannot tell
            whether a phone was said twice.

    Raises:
        AlignmentError: no such file, a kind that is not known, a damaged line, or intervals that overlap.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() == ".textgrid")
        if not files:
            raise AlignmentError(f"{path}: no .TextGrid files in this folder")
        return {file.relative_to(path).with_suffix("").as_posix(): _textgrid(file, level) for file in files}
    kind = path.suffix.lower()
    if kind == ".textgrid":
        return {path.stem: _textgrid(path, level)}
    readers: dict[str, Callable[[Path, list[str], Level], dict[str, Alignment]]] = {
        ".ctm": _ctm,
        ".tsv": _tsv,
        ".jsonl": _json_lines,
        ".json": _json_lines,
    }
    if kind not in readers:
        raise AlignmentError(f"{path}: alignments are .TextGrid, .ctm, .tsv or .jsonl files, or a folder of TextGrids")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise AlignmentError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise AlignmentError(f"{path}: not a text file in UTF-8") from None
    found = readers[kind](path, lines, level)
    if not found:
        raise AlignmentError(f"{path}: holds no alignments")
    return found


def merge(first: Mapping[str, Alignment], second: Mapping[str, Alignment]) -> dict[str, Alignment]:
    """The phones and words of both; where both have them, those of ``second``."""
    merged = dict(first)
    for key, alignment in second.items():
        before = merged.get(key, Alignment())
        merged[key] = Alignment(alignment.phones or before.phones, alignment.words or before.words)
    return merged


def match(keys: Iterable[str], alignments: Mapping[str, Alignment]) -> dict[str, Alignment]:
    """The alignment of each key that has one: under the key itself, or under its last part, after the last slash.

    The last part is tried on both sides, and only where it is unique on both. Raises ``AlignmentError`` when no key
    has one.
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


def frame_intervals(intervals: Sequence[Interval], num_frames: int) -> NDArray[np.int64]:
    """For each frame the index of the interval that holds its centre, (``num_frames``,); -1 where there is none."""
    centers = frame_center_seconds(0) + np.arange(num_frames) / FRAME_RATE
    if not intervals:
        return np.full(num_frames, -1, dtype=np.int64)
    # A microsecond of room: 0.0125 + 30 * 0.02 must lie in an interval that starts at 0.6125.
    starts = np.array([interval.start for interval in intervals]) - 1e-6
    ends = np.array([interval.end for interval in intervals]) - 1e-6
    index = np.searchsorted(starts, centers, side="right") - 1
    return np.where((index >= 0) & (centers < ends[index]), index, -1)


def characters(words: Iterable[Interval]) -> tuple[Interval, ...]:
    """The characters of words: each word's time is shared out evenly among its letters, digits and apostrophes.

    Letters are in lower case. Words without any (``<unk>`` becomes ``unk``; ``--`` is nothing) and time between
    words have no character.
    """
    found = []
    for word, start, end in words:
        letters = [letter for letter in word.lower() if letter.isalnum() or letter == "'"]
        step = (end - start) / max(len(letters), 1)
        found += [Interval(letter, start + i * step, start + (i + 1) * step) for i, letter in enumerate(letters)]
    return tuple(found)


def _by_last_part(keys: Iterable[str]) -> dict[str, str | None]:
    """Keys by what follows their last slash; None where several share it."""
    found: dict[str, str | None] = {}
    for key in keys:
        last = key.rpartition("/")[2]
        found[last] = None if last in found else key
    return found


def _checked(where: str, intervals: Iterable[tuple[str, float, float]]) -> tuple[Interval, ...]:
    """Sorted intervals without empty ones; refuses those that end before they start, or overlap."""
    found = sorted((Interval(label or SILENCE, start, end) for label, start, end in intervals), key=lambda i: i[1:])
    for label, start, end in found:
        if not 0 <= start <= end < float("inf"):
            raise AlignmentError(f"{where}: {label!r} lasts from {start} to {end} s")
    kept = [interval for interval in found if interval.end > interval.start]
    for before, after in pairwise(kept):
        # Aligners round to 10 ms or less; what overlaps by more was said by two people or is damaged.
        if after.start < before.end - 0.0101:
            raise AlignmentError(
                f"{where}: {before.label!r} (to {before.end} s) and {after.label!r} (from {after.start} s) overlap"
            )
    return tuple(
        interval if following is None else interval._replace(end=min(interval.end, following.start))
        for interval, following in zip(kept, [*kept[1:], None], strict=True)
    )


def _textgrid(path: Path, level: Level) -> Alignment:
    try:
        tiers = read_textgrid(path)
    except TextGridError as error:
        raise AlignmentError(str(error)) from None
    if len(tiers) == 1:
        named = {level: next(iter(tiers.values()))}
    else:
        # "speaker - phones" is what the Montreal Forced Aligner writes for one of several speakers.
        short = {name.rpartition(" - ")[2].strip().lower(): tier for name, tier in tiers.items()}
        named = {kind: short[name] for kind, names in _TIERS.items() for name in reversed(names) if name in short}
    if not named:
        raise AlignmentError(f"{path}: no tier is called phones or words, only {', '.join(map(repr, tiers))}")
    return Alignment(**{kind: _checked(f"{path}: {kind}", tier) for kind, tier in named.items()})


def _ctm(path: Path, lines: list[str], level: Level) -> dict[str, Alignment]:
    found: dict[str, list[tuple[str, float, float]]] = {}
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or line.startswith(";;"):
            continue
        try:
            key, _, start, duration, label = fields[:5]
            # Sums of decimals such as 0.1 + 0.2 end where the next interval starts.
            found.setdefault(key, []).append((label, float(start), round(float(start) + float(duration), 6)))
        except ValueError:
            raise AlignmentError(
                f"{path}:{number}: expected 'UTTERANCE CHANNEL START DURATION LABEL', got {line!r}"
            ) from None
    return {key: Alignment(**{level: _checked(f"{path}: {key}", intervals)}) for key, intervals in found.items()}


def _tsv(path: Path, lines: list[str], level: Level) -> dict[str, Alignment]:
    found = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        key, tab, text = line.rstrip().partition("\t")
        if not tab or not key:
            raise AlignmentError(f"{path}:{number}: expected 'UTTERANCE<tab>p,p,p,...', got {line[:60]!r}")
        if key in found:
            raise AlignmentError(f"{path}:{number}: the utterance {key!r} stands on an earlier line")
        labels = [label.strip() for label in text.split(",")]
        starts = [i for i, label in enumerate(labels) if i == 0 or labels[i - 1] != label]
        intervals = [
            (labels[start], start / _LABELS_A_SECOND, end / _LABELS_A_SECOND)
            for start, end in zip(starts, [*starts[1:], len(labels)], strict=True)
        ]
        found[key] = Alignment(**{level: _checked(f"{path}:{number}", intervals)})
    return found


def _json_lines(path: Path, lines: list[str], level: Level) -> dict[str, Alignment]:
    found: dict[str, Alignment] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            record: Any = json.loads(line)
            key = str(record["id"])
            levels: list[Level] = [kind for kind in _TIERS if kind in record]
            tiers = {
                kind: [(str(label), float(start), float(end)) for label, start, end in record[kind]] for kind in levels
            }
        except (ValueError, KeyError, TypeError):
            raise AlignmentError(
                f'{where}: expected {{"id": ..., "phones": [[label, start, end], ...]}}, got {line[:60]!r}'
            ) from None
        if not tiers:
            raise AlignmentError(f"{where}: neither phones nor words")
        if key in found:
            raise AlignmentError(f"{where}: the utterance {key!r} stands on an earlier line")
        found[key] = Alignment(**{kind: _checked(f"{where}: {kind}", tier) for kind, tier in tiers.items()})
    return found
