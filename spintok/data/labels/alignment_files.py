"""Readers of alignments: TextGrid, CTM, frame labels, JSON lines, and the files of one utterance of other aligners."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from spintok.data.json_lines import json_objects
from spintok.data.labels.alignments import SILENCE, Alignment, AlignmentError, Interval, Level, merge
from spintok.data.labels.textgrid import TextGridError, read_textgrid
from spintok.data.labels.utterance_alignments import SUFFIXES, UtteranceAlignmentError, is_json_tiers, read_tiers

__all__ = ["read_alignments"]

_TIERS: Mapping[Level, tuple[str, ...]] = {
    "phones": ("phones", "phone", "phonemes", "phoneme", "phn", "segments", "mau"),
    "words": ("words", "word", "wrd", "ort-mau"),
}
_LABELS_A_SECOND = 100


def read_alignments(source: str | os.PathLike[str], level: Level = "phones") -> dict[str, Alignment]:
    """Read the alignments of a file or a folder, by utterance.

    Args:
        source: a file of one utterance, which its name is: ``.TextGrid`` (long or short), ``.json`` or ``.csv`` of the
            Montreal Forced Aligner, ``.json`` of WhisperX, ``.phn`` or ``.wrd`` of TIMIT, ``.lab`` of HTK or xwaves, or
            ``.txt`` labels of Audacity; a folder of such files of one kind at any depth (the path below it is the
            utterance); ``.ctm`` (``utterance channel start duration label``); ``.tsv`` (``utterance``, tab, a label for
            each 10 ms, separated by commas); or JSON lines (``{"id": ..., "phones": [[label, start, end], ...],
            "words": [...], "aligner": ...}``).
        level: the kind of the intervals where the file does not say it: in ``.ctm``, ``.tsv``, ``.lab`` and ``.txt``,
            and in a TextGrid with a single tier. Equal neighbouring labels in a ``.tsv`` become one interval, as it
            cannot represent a phone that is said twice.

    Raises:
        AlignmentError: the file is missing, of an unknown kind or damaged, or intervals overlap.
    """
    path = Path(source)
    if path.is_dir():
        return _folder(path, level)
    kind = path.suffix.lower()
    if kind == ".textgrid":
        return {path.stem: _textgrid(path, level)}
    if kind in SUFFIXES and (kind != ".json" or _is_one_utterance(path)):
        return {path.stem: _one_utterance(path, level)}
    readers: dict[str, Callable[[Path, list[str], Level], dict[str, Alignment]]] = {
        ".ctm": _ctm,
        ".tsv": _tsv,
        ".jsonl": _json_lines,
        ".json": _json_lines,
    }
    if kind not in readers:
        known = f".TextGrid, .ctm, .tsv, .jsonl, {', '.join(SUFFIXES)}"
        raise AlignmentError(f"{path}: alignments are {known}, or a folder of one kind of them")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise AlignmentError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise AlignmentError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise AlignmentError(f"{path}: {error.strerror or error}") from None
    found = readers[kind](path, lines, level)
    if not found:
        raise AlignmentError(f"{path}: contains no alignments")
    return found


def _textgrid(path: Path, level: Level) -> Alignment:
    try:
        tiers = read_textgrid(path)
    except TextGridError as error:
        raise AlignmentError(str(error)) from None
    return _of_tiers(path, {"": next(iter(tiers.values()))} if len(tiers) == 1 else tiers, level)


def _one_utterance(path: Path, level: Level) -> Alignment:
    try:
        return _of_tiers(path, read_tiers(path), level)
    except UtteranceAlignmentError as error:
        raise AlignmentError(str(error)) from None


def _is_one_utterance(path: Path) -> bool:
    try:
        return is_json_tiers(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        # The reader of JSON lines says what is wrong.
        return False


def _of_tiers(path: Path, tiers: Mapping[str, list[tuple[str, float, float]]], level: Level) -> Alignment:
    """The alignment of tiers by name; one without a name has the ``level``."""
    # The Montreal Forced Aligner names the tiers of several speakers "speaker - phones".
    short = {name.rpartition(" - ")[2].strip().lower(): tier for name, tier in tiers.items()}
    named = {kind: short[name] for kind, names in _TIERS.items() for name in reversed(names) if name in short}
    if "" in tiers:
        named = {level: tiers[""]}
    if not named:
        raise AlignmentError(f"{path}: no tier is called phones or words, only {', '.join(map(repr, tiers))}")
    return _alignment({kind: _checked(f"{path}: {kind}", tier) for kind, tier in named.items()})


def _ctm(path: Path, lines: list[str], level: Level) -> dict[str, Alignment]:
    found: dict[str, list[tuple[str, float, float]]] = {}
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or line.startswith(";;"):
            continue
        try:
            key, _, start, duration, label = fields[:5]
            # Rounded, so that 0.1 + 0.2 ends where an interval at 0.3 starts.
            found.setdefault(key, []).append((label, float(start), round(float(start) + float(duration), 6)))
        except ValueError:
            raise AlignmentError(
                f"{path}:{number}: expected 'UTTERANCE CHANNEL START DURATION LABEL', got {line!r}"
            ) from None
    return {key: _alignment({level: _checked(f"{path}: {key}", intervals)}) for key, intervals in found.items()}


def _tsv(path: Path, lines: list[str], level: Level) -> dict[str, Alignment]:
    found = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        key, tab, text = line.rstrip().partition("\t")
        if not tab or not key:
            raise AlignmentError(f"{path}:{number}: expected 'UTTERANCE<tab>p,p,p,...', got {line[:60]!r}")
        if key in found:
            raise AlignmentError(f"{path}:{number}: the utterance {key!r} is on an earlier line too")
        labels = [label.strip() for label in text.split(",")]
        starts = [i for i, label in enumerate(labels) if i == 0 or labels[i - 1] != label]
        intervals = [
            (labels[start], start / _LABELS_A_SECOND, end / _LABELS_A_SECOND)
            for start, end in zip(starts, [*starts[1:], len(labels)], strict=True)
        ]
        found[key] = _alignment({level: _checked(f"{path}:{number}", intervals)})
    return found


def _json_lines(path: Path, lines: list[str], level: Level) -> dict[str, Alignment]:
    found: dict[str, Alignment] = {}
    try:
        for number, record in json_objects(lines):
            where = f"{path}:{number}"
            try:
                key = str(record["id"])
                levels: list[Level] = [kind for kind in _TIERS if kind in record]
                tiers = {kind: [(str(label), float(a), float(b)) for label, a, b in record[kind]] for kind in levels}
            except (ValueError, KeyError, TypeError, OverflowError):
                line = lines[number - 1][:60]
                raise AlignmentError(
                    f'{where}: expected {{"id": ..., "phones": [[label, start, end], ...]}}, got {line!r}'
                ) from None
            if not tiers:
                raise AlignmentError(f"{where}: neither phones nor words")
            if key in found:
                raise AlignmentError(f"{where}: the utterance {key!r} is on an earlier line too")
            intervals = {kind: _checked(f"{where}: {kind}", tier) for kind, tier in tiers.items()}
            aligner = record.get("aligner")
            found[key] = replace(_alignment(intervals), aligner=None if aligner is None else str(aligner))
    except AlignmentError:
        raise
    except ValueError as error:
        raise AlignmentError(f"{path}:{error}") from None
    return found


def _alignment(tiers: Mapping[Level, tuple[Interval, ...]]) -> Alignment:
    return Alignment(tiers.get("phones", ()), tiers.get("words", ()))


def _folder(folder: Path, level: Level) -> dict[str, Alignment]:
    """The alignments of the files of one kind at any depth, by their path below the folder without the extension.

    The first kind that is there counts: TIMIT has a transcript (.txt) beside its phones (.phn) and words (.wrd).
    """
    files = _files_below(folder)
    for suffixes in ((".textgrid",), (".phn", ".wrd"), (".json",), (".csv",), (".lab",), (".txt",)):
        chosen = [file for file in files if file.suffix.lower() in suffixes]
        if not chosen:
            continue
        found: dict[str, Alignment] = {}
        read: dict[tuple[str, str], Path] = {}
        for file in chosen:
            key = file.relative_to(folder).with_suffix("").as_posix()
            twin = read.setdefault((key, file.suffix.lower()), file)
            if twin is not file:
                raise AlignmentError(f"{file}: and {twin.name} are alignments of the same utterance")
            one = _textgrid(file, level) if suffixes == (".textgrid",) else _one_utterance(file, level)
            found |= merge({key: found.get(key, Alignment())}, {key: one})
        return found
    raise AlignmentError(f"{folder}: no .TextGrid files in this folder, nor {', '.join(SUFFIXES)}")


def _files_below(folder: Path) -> list[Path]:
    def fail(error: OSError) -> None:
        raise AlignmentError(f"{error.filename}: {error.strerror}") from None

    found: list[Path] = []
    for where, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        found += sorted(Path(where, name) for name in names)
    return found


def _checked(where: str, intervals: Iterable[tuple[str, float, float]]) -> tuple[Interval, ...]:
    """Sort the intervals and drop empty ones; raise if one ends before it starts, or two overlap."""
    found = sorted((Interval(label or SILENCE, start, end) for label, start, end in intervals), key=lambda i: i[1:])
    for label, start, end in found:
        if not 0 <= start <= end < float("inf"):
            raise AlignmentError(f"{where}: {label!r} lasts from {start} to {end} s")
    kept = [interval for interval in found if interval.end > interval.start]
    for before, after in pairwise(kept):
        # Aligners round to 10 ms or less; a larger overlap means two speakers or a damaged file.
        if after.start < before.end - 0.0101:
            raise AlignmentError(
                f"{where}: {before.label!r} (to {before.end} s) and {after.label!r} (from {after.start} s) overlap"
            )
    return tuple(
        interval if following is None else interval._replace(end=min(interval.end, following.start))
        for interval, following in zip(kept, [*kept[1:], None], strict=True)
    )
