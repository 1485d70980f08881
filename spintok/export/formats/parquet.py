"""Parquet shards that ``datasets.load_dataset("parquet", data_files=...)`` opens."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from spintok.corpus import token_formats
from spintok.corpus.token_formats import Record
from spintok.export.errors import ExportError
from spintok.export.formats.columns import record_of, tokens_of_arrays
from spintok.export.source import Header

__all__ = ["read_parquet", "write_parquet"]

FINGERPRINT = b"spintok.fingerprint"


def write_parquet(path: Path, records: Sequence[Record], header: Header) -> None:
    """Write one shard; the fingerprint goes into the schema's metadata."""
    token_formats.write_parquet(path, records, header, metadata={FINGERPRINT: header.fingerprint.encode()})


def read_parquet(path: Path, header: Header) -> Iterator[Record]:
    """The records of a shard of ``write_parquet``. Raises ``ExportError`` when the shard has another fingerprint."""
    metadata, rows = token_formats.read_parquet(path)
    if metadata.get(FINGERPRINT) != header.fingerprint.encode():
        raise ExportError(f"{path}: holds tokens of another tokenizer than its folder")
    for row, arrays in rows:
        yield record_of(row, tokens_of_arrays(arrays, header, row["num_samples"]))
