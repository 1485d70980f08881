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


def together(utterances: Iterable[Any], rows: Iterable[Any], what: Path) -> Iterator[tuple[Any, Any]]:
    """Pair the rows of two files. Raises ``ExportError`` if one has fewer."""
    try:
        yield from zip(utterances, rows, strict=True)
    except ValueError as error:
        if "zip()" not in str(error):
            raise
        raise ExportError(f"{what}: has another number of utterances than the files beside it") from None
