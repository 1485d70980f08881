"""JSON lines with the fields that slamkit and S3Tokenizer read.

slamkit: ``{"file_name": ..., "units": [...], "duration": [...]}``; S3Tokenizer: ``{"key": ..., "code": [...]}``.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spintok._files import json_line, read_json_lines
from spintok.corpus.token_formats import Record
from spintok.export.folder import text_files
from spintok.export.formats.columns import only, read_utterances, record_of, together, tokens_of_runs, utterance_line
from spintok.export.source import Header
from spintok.tokens import Tokens

__all__ = ["read_s3tokenizer", "read_slamkit", "write_s3tokenizer", "write_slamkit"]

TOKENS, UTTERANCES = "tokens.jsonl", "utterances.jsonl"


def write_slamkit(folder: Path, records: Iterable[Record], header: Header) -> list[Path]:
    """Write one line per utterance. Without de-duplication every duration is 1."""

    def row(record: Record) -> dict[str, Any]:
        tokens = only(record, header)
        units = tokens.units if header.dedup else tokens.codes
        durations = tokens.durations if header.dedup else np.ones_like(units)
        return {"file_name": record.file_name, "units": units.tolist(), "duration": durations.tolist()}

    return _write(folder, records, header, row)


def read_slamkit(folder: Path, header: Header) -> Iterator[Record]:
    """The records of files of ``write_slamkit``."""
    for utterance, row in _rows(folder):
        tokens = tokens_of_runs(row["units"], row["duration"], header, utterance["num_samples"])
        yield record_of(utterance, {header.codebook: tokens})


def write_s3tokenizer(folder: Path, records: Iterable[Record], header: Header) -> list[Path]:
    """Write one line per utterance, with one code per frame."""

    def row(record: Record) -> dict[str, Any]:
        return {"key": record.key, "code": only(record, header).codes.tolist()}

    return _write(folder, records, header, row)


def read_s3tokenizer(folder: Path, header: Header) -> Iterator[Record]:
    """The records of files of ``write_s3tokenizer``."""
    for utterance, row in _rows(folder):
        tokens = Tokens(row["code"], header.codebooks[header.codebook], utterance["num_samples"], header.grid)
        yield record_of(utterance, {header.codebook: tokens})


def _write(folder: Path, records: Iterable[Record], header: Header, row: Any) -> list[Path]:
    paths = [folder / UTTERANCES, folder / TOKENS]
    with text_files(*paths) as (utterances, lines):
        for record in records:
            utterances.write(utterance_line(record))
            lines.write(json_line(row(record)))
    return paths


def _rows(folder: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    path = folder / TOKENS
    yield from together(read_utterances(folder / UTTERANCES), read_json_lines(path), path)
