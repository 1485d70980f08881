"""What the export formats share: utterances as JSON lines, and records from what a format read back."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from spintok._files import json_line, read_json_lines
from spintok.corpus.token_formats import Record, array_names, tokens_of, utterance_of
from spintok.export.errors import ExportError
from spintok.export.source import Header
from spintok.tokens import Tokens

__all__ = [
    "only",
    "read_utterances",
    "record_of",
    "together",
    "tokens_of_arrays",
    "tokens_of_runs",
    "utterance_line",
]

_FEWEST_SAMPLES = 80
"""Samples per frame of the fastest tokenizer imaginable, 200 frames a second."""

_MOST_FRAMES = 2**26
"""Frames of the longest recording whose samples are not known: two weeks."""


def only(record: Record, header: Header) -> Tokens:
    """The tokens of the first codebook, for formats that hold only one."""
    return record.tokens[header.codebook]


def utterance_line(record: Record) -> str:
    """The line of ``utterances.jsonl`` for a record: everything but its tokens, for formats without room for it."""
    return json_line(utterance_of(record))


def read_utterances(path: Path) -> Iterator[dict[str, Any]]:
    """The utterances of a file of ``utterance_line``."""
    yield from read_json_lines(path)


def record_of(utterance: Mapping[str, Any], tokens: Mapping[str, Tokens]) -> Record:
    """The record of an utterance that ``utterance_of`` described, with its tokens."""
    return Record(utterance["key"], utterance["file_name"], tokens, utterance["speaker"])


def tokens_of_runs(units: ArrayLike, durations: ArrayLike, header: Header, num_samples: int | None) -> Tokens:
    """Like ``Tokens.from_runs`` for the first codebook, for runs from a file, whose durations may be damaged.

    Raises ``ValueError`` for durations that are longer than the recording, before allocating memory for them.
    """
    _check_durations(durations, num_samples)
    return Tokens.from_runs(units, durations, header.codebooks[header.codebook], num_samples, header.grid)


def tokens_of_arrays(arrays: Mapping[str, Any], header: Header, num_samples: int | None) -> dict[str, Tokens]:
    """Like ``token_formats.tokens_of``, for arrays from a file, whose durations may be damaged."""
    for name in array_names(header) if header.dedup else ():
        if name.endswith("duration"):
            _check_durations(arrays[name], num_samples)
    return tokens_of(arrays, header, num_samples)


def _check_durations(durations: ArrayLike, num_samples: int | None) -> None:
    frames = sum(np.asarray(durations).tolist())
    if frames > (_MOST_FRAMES if num_samples is None else num_samples // _FEWEST_SAMPLES + 1):
        raise ValueError(f"runs of {frames} frames in a recording of {num_samples} samples")


def together(utterances: Iterable[Any], rows: Iterable[Any], what: Path) -> Iterator[tuple[Any, Any]]:
    """Pair the rows of two files. Raises ``ExportError`` if one has fewer."""
    try:
        yield from zip(utterances, rows, strict=True)
    except ValueError as error:
        if "zip()" not in str(error):
            raise
        raise ExportError(f"{what}: has another number of utterances than the files beside it") from None
