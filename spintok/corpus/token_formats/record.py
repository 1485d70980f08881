"""One utterance's tokens as they are stored, and as the arrays that columnar formats hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spintok.frames import GRID, FrameGrid
from spintok.tokens import Tokens

__all__ = [
    "Layout",
    "Record",
    "ShardError",
    "TokenLayout",
    "array_names",
    "arrays_of",
    "field_name",
    "record_of",
    "tokens_of",
    "utterance_of",
]


class ShardError(ValueError):
    """A shard that cannot be written or read; the message names it and the cause."""


@dataclass(frozen=True)
class Record:
    """One utterance's tokens.

    Attributes:
        key: unique in the corpus.
        file_name: the audio file as it was listed.
        tokens: the tokens of each codebook, by its name, the primary first.
        speaker: when known.
    """

    key: str
    file_name: str
    tokens: Mapping[str, Tokens]
    speaker: str | None = None


class Layout(Protocol):
    """Which codebooks a file holds, with the size K of each, whether as runs or as a code per frame, and the frames."""

    @property
    def codebooks(self) -> Mapping[str, int]: ...

    @property
    def dedup(self) -> bool: ...

    @property
    def grid(self) -> FrameGrid: ...


@dataclass(frozen=True)
class TokenLayout:
    """A ``Layout``.

    Attributes:
        codebooks: K of each codebook by name, the primary first.
        dedup: runs with durations, or a code per frame.
        grid: where the frames lie.
    """

    codebooks: Mapping[str, int]
    dedup: bool
    grid: FrameGrid = GRID


def field_name(codebook: str, what: str) -> str:
    """``what`` for the primary codebook, ``auxiliary_what`` for a codebook named "auxiliary"."""
    return what if codebook == "primary" else f"{codebook}_{what}"


def array_names(layout: Layout) -> list[str]:
    """The names of ``arrays_of`` in its order."""
    fields = ("units", "duration") if layout.dedup else ("units",)
    return [field_name(name, what) for name in layout.codebooks for what in fields]


def arrays_of(record: Record, layout: Layout) -> dict[str, NDArray[np.int32]]:
    """``units`` and, with ``dedup``, ``duration`` of each codebook, each (R,) int32, under their ``field_name``."""
    arrays = []
    for name in layout.codebooks:
        tokens = record.tokens[name]
        arrays += [tokens.units, tokens.durations] if layout.dedup else [tokens.codes]
    return dict(zip(array_names(layout), arrays, strict=True))


def tokens_of(
    arrays: Mapping[str, Any], layout: Layout, num_samples: int | None, num_frames: int | None = None
) -> dict[str, Tokens]:
    """The inverse of ``arrays_of``.

    Args:
        arrays: the arrays by field name; lists of integers do as well.
        layout: the layout of the file.
        num_samples: the utterance's number of samples at 16 kHz, when known.
        num_frames: the utterance's number of frames, when the file states it; checked before an array of this length is
            made.

    Raises:
        ValueError: the arrays are not tokens of these codebooks, or of another number of frames.
        KeyError: an array is missing.
    """
    tokens = {}
    for name, size in layout.codebooks.items():
        units = arrays[field_name(name, "units")]
        durations = arrays[field_name(name, "duration")] if layout.dedup else None
        frames = len(units) if durations is None else sum(np.asarray(durations).tolist())
        if num_frames is not None and frames != num_frames:
            raise ValueError(f"{frames} codes for {num_frames} frames")
        if durations is None:
            tokens[name] = Tokens(units, size, num_samples, layout.grid)
        else:
            tokens[name] = Tokens.from_runs(units, durations, size, num_samples, layout.grid)
    return tokens


def utterance_of(record: Record) -> dict[str, Any]:
    """Everything in a record but its tokens: ``key``, ``file_name``, ``speaker``, ``num_samples``."""
    return {
        "key": record.key,
        "file_name": record.file_name,
        "speaker": record.speaker,
        "num_samples": next(iter(record.tokens.values())).num_samples,
    }


def record_of(
    row: Mapping[str, Any], arrays: Mapping[str, Any], codebooks: Mapping[str, int], grid: FrameGrid = GRID
) -> Record:
    """The record of a row of a shard, with the fields of ``utterance_of`` and ``num_frames``, and its arrays.

    Raises ``ValueError``, ``KeyError`` or ``TypeError`` when they are not such a row.
    """
    key, file_name, speaker, samples = (row[name] for name in ("key", "file_name", "speaker", "num_samples"))
    if not (isinstance(key, str) and isinstance(file_name, str) and isinstance(speaker, str | None)):
        raise TypeError("key, file_name and speaker are strings")
    frames = row["num_frames"]
    if not isinstance(frames, int) or not isinstance(samples, int | None) or frames > (samples or 2**31):
        raise ValueError(f"{key!r}: {frames!r} frames of {samples!r} samples")
    layout = TokenLayout(codebooks, field_name(next(iter(codebooks)), "duration") in arrays, grid)
    try:
        tokens = tokens_of(arrays, layout, samples, frames)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{key!r}: {error}") from None
    return Record(key, file_name, tokens, speaker)
