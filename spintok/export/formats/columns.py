"""A record as arrays and strings, and back: what the array formats share."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spintok.corpus.token_formats import Record
from spintok.export.errors import ExportError
from spintok.export.source import Header
from spintok.tokens import Tokens

__all__ = ["arrays_of", "only", "read_utterances", "record_of", "tokens_of", "utterance_line", "utterance_of"]

Integers = NDArray[np.int32]


def arrays_of(record: Record, header: Header) -> dict[str, Integers]:
    """``units`` and, de-duplicated, ``duration`` of each codebook, (R,) int32 each.

    The fields of any codebook but the primary begin with its name: ``auxiliary_units``.
    """
    found = {}
    for name in header.codebooks:
        tokens = record.tokens[name]
        found[_field(name, "units")] = tokens.units if header.dedup else tokens.codes
        if header.dedup:
            found[_field(name, "duration")] = tokens.durations
    return found


def tokens_of(arrays: Mapping[str, Any], header: Header, num_samples: int | None) -> dict[str, Tokens]:
    """The tokens of each codebook that ``arrays_of`` laid out."""
    return {
        name: Tokens.from_runs(arrays[_field(name, "units")], arrays[_field(name, "duration")], size, num_samples)
        if header.dedup
        else Tokens(arrays[_field(name, "units")], size, num_samples)
        for name, size in header.codebooks.items()
    }


def only(record: Record, header: Header) -> Tokens:
    """The tokens of the first codebook, for formats that hold one."""
    return record.tokens[header.codebook]


def utterance_of(record: Record, header: Header) -> dict[str, Any]:
    """All that a record holds beside its tokens."""
    return {
        "key": record.key,
        "file_name": record.file_name,
        "speaker": record.speaker,
        "num_samples": only(record, header).num_samples,
    }


def utterance_line(record: Record, header: Header) -> str:
    """``utterance_of`` as a line of ``utterances.jsonl``, for formats that have no place for it."""
    return json.dumps(utterance_of(record, header), ensure_ascii=False) + "\n"


def read_utterances(path: Path) -> Iterator[dict[str, Any]]:
    """The lines that ``utterance_line`` wrote."""
    with path.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            yield json.loads(line)


def record_of(utterance: Mapping[str, Any], tokens: Mapping[str, Tokens]) -> Record:
    """The record that ``utterance_of`` described."""
    return Record(utterance["key"], utterance["file_name"], tokens, utterance["speaker"])


def together(utterances: Iterable[Any], rows: Iterable[Any], what: Path) -> Iterator[tuple[Any, Any]]:
    """Pairs of two files that must go line by line; ``ExportError`` when one is shorter."""
    try:
        yield from zip(utterances, rows, strict=True)
    except ValueError as error:
        if "zip()" not in str(error):
            raise
        raise ExportError(f"{what}: has another number of utterances than the files beside it") from None


def _field(codebook: str, what: str) -> str:
    return what if codebook == "primary" else f"{codebook}_{what}"
