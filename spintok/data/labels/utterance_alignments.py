"""Files that align one utterance: JSON and CSV of the Montreal Forced Aligner, WhisperX, TIMIT, HTK, xwaves, Audacity.

Each reader returns interval tiers by name, ``(label, start, end)`` with times in seconds. A tier without a name has the
name "".

Sources: the user guide of the Montreal Forced Aligner, "Output formats"; the README of WhisperX; the TIMIT readme
(times in samples at 16 kHz); the HTK Book, section 6.2 (times in units of 100 ns); the Audacity manual, "Importing and
exporting labels".
"""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from spintok.frames import SAMPLE_RATE

__all__ = ["SUFFIXES", "UtteranceAlignmentError", "is_json_tiers", "read_tiers"]

Tiers = dict[str, list[tuple[str, float, float]]]

_HTK_RATE = 10_000_000


class UtteranceAlignmentError(ValueError):
    """A damaged file; the message names the file, the line where it is known, and the cause."""


def read_tiers(path: Path) -> Tiers:
    """Read the interval tiers of a file with one of ``SUFFIXES``.

    Raises ``UtteranceAlignmentError``.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UtteranceAlignmentError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise UtteranceAlignmentError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise UtteranceAlignmentError(f"{path}: {error.strerror or error}") from None
    try:
        return _READERS[path.suffix.lower()](text)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, csv.Error) as error:
        raise UtteranceAlignmentError(f"{path}: {error if isinstance(error, ValueError) else repr(error)}") from None


def is_json_tiers(text: str) -> bool:
    """Whether a text is the JSON of one utterance rather than JSON lines."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and not {"tiers", "segments", "word_segments"}.isdisjoint(found)


def _json(text: str) -> Tiers:
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from None
    if isinstance(found, dict) and "tiers" in found:
        return _mfa_json(found["tiers"])
    if isinstance(found, dict) and ("segments" in found or "word_segments" in found):
        return _whisperx(found)
    raise ValueError("neither the JSON of the Montreal Forced Aligner (tiers) nor that of WhisperX (segments)")


def _mfa_json(tiers: Any) -> Tiers:
    """Tiers by name, each with ``entries`` of start, end and label; or a list of tiers with a ``name``."""
    named = tiers.items() if isinstance(tiers, dict) else [(tier["name"], tier) for tier in tiers]
    return {
        str(name): [(str(label), float(start), float(end)) for start, end, label in tier["entries"]]
        for name, tier in named
    }


def _whisperx(found: dict[str, Any]) -> Tiers:
    """The words that have times; WhisperX gives none to numbers, for example."""
    words = found.get("word_segments")
    if words is None:
        words = [word for segment in found["segments"] for word in segment.get("words", ())]
    timed = [word for word in words if "start" in word and "end" in word]
    if not timed:
        raise ValueError("no word has times: run WhisperX with alignment")
    return {"words": [(str(word["word"]).strip(), float(word["start"]), float(word["end"])) for word in timed]}


def _mfa_csv(text: str) -> Tiers:
    tiers: Tiers = {}
    for row in csv.DictReader(text.splitlines(), strict=True):
        if any(row.get(column) is None for column in ("Begin", "End", "Label", "Type")):
            raise ValueError("expected the columns Begin, End, Label and Type")
        tiers.setdefault(row["Type"], []).append((row["Label"], float(row["Begin"]), float(row["End"])))
    return tiers


def _timit(tier: str) -> Callable[[str], Tiers]:
    def read(text: str) -> Tiers:
        rows = _rows(text, "START END LABEL in samples")
        return {tier: [(label, int(start) / SAMPLE_RATE, int(end) / SAMPLE_RATE) for start, end, label in rows]}

    return read


def _lab(text: str) -> Tiers:
    """Label files of HTK, in units of 100 ns or in seconds, or of xwaves: end, colour and label after a line with #."""
    before, header, after = text.partition("\n#")
    if header or text.startswith("#"):
        return {"": list(_xwaves(after if header else text[1:]))}
    rows = list(_rows(before, "START END LABEL"))
    rate = 1 if any("." in time for row in rows for time in row[:2]) else _HTK_RATE
    return {"": [(label.split()[0], float(start) / rate, float(end) / rate) for start, end, label in rows]}


def _xwaves(text: str) -> Iterator[tuple[str, float, float]]:
    start = 0.0
    for end, _, label in _rows(text, "END COLOUR LABEL"):
        yield label, start, float(end)
        start = float(end)


def _audacity(text: str) -> Tiers:
    # Lines that begin with a backslash give the frequency range of a spectral selection.
    lines = [line for line in text.splitlines() if not line.startswith("\\")]
    return {"": [(label, float(a), float(b)) for a, b, label in _rows("\n".join(lines), "START END LABEL", "\t")]}


def _rows(text: str, expected: str, separator: str | None = None) -> Iterator[tuple[str, str, str]]:
    """The three fields of each line that is not blank; the last one may contain separators, or be empty."""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        fields = [*line.strip("\r\n").split(separator, maxsplit=2)]
        if len(fields) == 2 and separator is not None:
            fields.append("")
        if len(fields) < 3:
            raise ValueError(f"line {number}: expected {expected}, got {line[:60]!r}")
        yield fields[0], fields[1], fields[2].strip()


_READERS: dict[str, Callable[[str], Tiers]] = {
    ".json": _json,
    ".csv": _mfa_csv,
    ".phn": _timit("phones"),
    ".wrd": _timit("words"),
    ".lab": _lab,
    ".txt": _audacity,
}
SUFFIXES = tuple(_READERS)
"""The suffixes of files that align one utterance, in lower case."""
