"""Utterances: what lists of audio are made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spintok.data.locations.base import Location
from spintok.frames import SAMPLE_RATE

__all__ = ["ManifestError", "Utterance", "as_utf8", "stated_duration"]


_LONGEST = 1e9
"""Seconds of a recording that are taken for real: 30 years."""


class ManifestError(ValueError):
    """A list of utterances that cannot be used; the message names the file, the line and the cause."""


@dataclass(frozen=True)
class Utterance:
    """One recording.

    Attributes:
        key: unique in its list.
        path: the audio file, or where else the audio is.
        speaker: if known.
        source: the corpus that it is from, if known.
        seconds: the duration that the list states.
    """

    key: str
    path: Path | Location
    speaker: str | None = None
    source: str | None = None
    seconds: float | None = None


def stated_duration(record: Mapping[str, object]) -> float | None:
    """The duration that a line states as NeMo (``duration``, in seconds) or this library (``num_samples``) does.

    None, and lists, which the lines of token folders have under ``duration``, state none. Raises ``ValueError`` for
    what is no length of a recording.
    """
    for field, rate in (("duration", 1), ("num_samples", SAMPLE_RATE)):
        value = record.get(field)
        if value is None or isinstance(value, list):
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _LONGEST * rate:
            unit = "seconds" if rate == 1 else f"samples at {rate} Hz"
            raise ValueError(f"{field} must be a number of {unit}, got {value!r:.60}; correct it or leave it out")
        return value / rate
    return None


def as_utf8(text: str) -> str:
    """The text with bytes and surrogates that are not UTF-8 in hexadecimal, as shards are UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
