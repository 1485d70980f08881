"""What the export formats share: utterances as JSON lines, and records from what a format read back."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from spintok._files import json_line, read_json_lines
from spintok.corpus.token_formats import Record, utterance_of
from spintok.export.errors import ExportError
from spintok.export.source import Header
from spintok.tokens import Tokens

__all__ = ["only", "read_utterances", "record_of", "together", "utterance_line"]


def only(record: Record, header: Header) -> Tokens:
    """The tokens of the first codebook, for formats that hold one."""
    return record.tokens[header.codebook]


def utterance_line(record: Record) -> str:
    """``utterance_of`` as a line of ``utterances.jsonl``, for formats that have no place for it."""
    return json_line(utterance_of(record))


def read_utterances(path: Path) -> Iterator[dict[str, Any]]:
    """The lines that ``utterance_line`` wrote."""
    yield from read_json_lines(path)


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
