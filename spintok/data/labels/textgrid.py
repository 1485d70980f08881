"""Interval tiers of Praat's TextGrid files, long and short.

A TextGrid is a stream of numbers and quoted text; the long form adds words around them ("xmin = 0"), which are skipped.
Source: the Praat manual, "TextGrid file formats".
"""

import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["TextGridError", "read_textgrid"]

# Quoted text in which "" is a quote, <flags>, and numbers that stand alone, not those in "intervals [1]".
_VALUE = re.compile(r'"((?:[^"]|"")*)"|<(\w+)>|(?<![\w\[.])(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![\w\].])')


class TextGridError(ValueError):
    """A file that is not a TextGrid; the message names the file, the line and the cause."""


def read_textgrid(path: Path) -> dict[str, list[tuple[str, float, float]]]:
    """Read the interval tiers by name: ``(label, start, end)``, times in seconds. Point tiers are skipped.

    Raises ``TextGridError``.
    """
    try:
        text = _decoded(path)
    except FileNotFoundError:
        raise TextGridError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise TextGridError(f"{path}: neither UTF-8 nor UTF-16 text") from None
    except OSError as error:
        raise TextGridError(f"{path}: {error.strerror or error}") from None
    if "ooTextFile" not in text[:200] or "TextGrid" not in text[:200]:
        raise TextGridError(f"{path}:1: not a TextGrid: the file must begin with ooTextFile and TextGrid")
    values = _Values(path, text)
    values.text(), values.text()
    values.number(), values.number()
    if values.flag() != "exists":
        return {}
    tiers: dict[str, list[tuple[str, float, float]]] = {}
    for _ in range(values.count()):
        kind, name = values.text(), values.text()
        values.number(), values.number()
        rows = range(values.count())
        match kind:
            case "IntervalTier":
                spans = [(values.number(), values.number(), values.text()) for _ in rows]
                tiers[name] = [(label.strip(), start, end) for start, end, label in spans]
            case "TextTier":
                for _ in rows:
                    values.number(), values.text()
            case _:
                raise values.error("IntervalTier or TextTier")
    return tiers


def _decoded(path: Path) -> str:
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


class _Values:
    """Reads the values of a TextGrid one after another."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text
        self._at = 0
        self._matches: Iterator[re.Match[str]] = _VALUE.finditer(text)

    def text(self) -> str:
        found = self._next("text in quotes", 1)
        return found.replace('""', '"')

    def flag(self) -> str:
        return self._next("<exists>", 2)

    def number(self) -> float:
        return float(self._next("a number", 3))

    def count(self) -> int:
        number = self.number()
        # A value takes two characters at least.
        if not 0 <= number <= len(self._text) or number != int(number):
            raise self.error("a count")
        return int(number)

    def error(self, expected: str) -> TextGridError:
        line = self._text.count("\n", 0, self._at) + 1
        return TextGridError(f"{self._path}:{line}: expected {expected}: the TextGrid is damaged or cut short")

    def _next(self, expected: str, group: int) -> str:
        match = next(self._matches, None)
        self._at = len(self._text) if match is None else match.start()
        value = None if match is None else match.group(group)
        if value is None:
            raise self.error(expected)
        return value
