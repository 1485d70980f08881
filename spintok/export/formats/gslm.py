"""GSLM's text format: lines ``name|unit unit unit`` and, for runs, a file of durations with the same layout."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from spintok.corpus.token_formats import Record
from spintok.export.errors import ExportError
from spintok.export.folder import text_files
from spintok.export.formats.columns import only, read_utterances, record_of, together, tokens_of_runs, utterance_line
from spintok.export.source import Header
from spintok.tokens import Tokens

__all__ = ["read_gslm", "write_gslm"]

UTTERANCES, UNITS, DURATIONS = "utterances.jsonl", "tokens.txt", "tokens.durations.txt"


def write_gslm(folder: Path, records: Iterable[Record], header: Header) -> list[Path]:
    """Write units and durations, with keys as names. Raises ``ExportError`` for a key that the format cannot hold."""
    words = [str(code) for code in range(header.codebooks[header.codebook])]
    paths = [folder / name for name in _names(header)]
    with text_files(*paths) as (utterances, units, *durations):
        for record in records:
            if any(mark in record.key for mark in "|\n\r"):
                raise ExportError(f"{record.key!r}: a line of name|units cannot hold this key; use another target")
            tokens = only(record, header)
            codes = tokens.units if header.dedup else tokens.codes
            utterances.write(utterance_line(record))
            units.write(f"{record.key}|{' '.join(map(words.__getitem__, codes.tolist()))}\n")
            for file in durations:
                file.write(f"{record.key}|{' '.join(map(str, tokens.durations.tolist()))}\n")
    return paths


def read_gslm(folder: Path, header: Header) -> Iterator[Record]:
    """The records of files of ``write_gslm``."""
    with ExitStack() as stack:
        _, *names = _names(header)
        files = [
            stack.enter_context((folder / name).open(encoding="utf-8", errors="surrogateescape", newline="\n"))
            for name in names
        ]
        rows = zip(*files, strict=True)
        for utterance, lines in together(read_utterances(folder / UTTERANCES), rows, folder / UNITS):
            numbers = [np.array(line.rpartition("|")[2].split(), dtype=np.int32) for line in lines]
            samples = utterance["num_samples"]
            if header.dedup:
                tokens = tokens_of_runs(numbers[0], numbers[1], header, samples)
            else:
                tokens = Tokens(numbers[0], header.codebooks[header.codebook], samples, header.grid)
            yield record_of(utterance, {header.codebook: tokens})


def _names(header: Header) -> tuple[str, ...]:
    return (UTTERANCES, UNITS, DURATIONS) if header.dedup else (UTTERANCES, UNITS)
