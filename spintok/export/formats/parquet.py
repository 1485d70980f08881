"""Parquet shards that ``datasets.load_dataset("parquet", data_files=...)`` opens."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spintok._files import atomic
from spintok.corpus.token_formats import Record
from spintok.export.errors import ExportError
from spintok.export.formats.columns import arrays_of, record_of, tokens_of, utterance_of
from spintok.export.optional import optional
from spintok.export.source import Header

__all__ = ["read_parquet", "write_parquet"]

FINGERPRINT = b"spintok.fingerprint"


def write_parquet(path: Path, records: Sequence[Record], header: Header) -> None:
    """Write one shard: the columns of ``arrays_of`` as lists of int32; the fingerprint in the schema's metadata."""
    arrow, parquet = optional("pyarrow"), optional("pyarrow.parquet")
    rows = [arrays_of(record, header) for record in records]
    utterances = [utterance_of(record, header) for record in records]
    columns = {
        name: arrow.array([u[name] for u in utterances], arrow.string()) for name in ("key", "file_name", "speaker")
    }
    columns["num_samples"] = arrow.array([u["num_samples"] for u in utterances], arrow.int64())
    for name in rows[0]:
        # From the arrays themselves: lists of Python integers would take ten times as long.
        offsets = np.cumsum([0, *(row[name].size for row in rows)], dtype=np.int32)
        columns[name] = arrow.ListArray.from_arrays(offsets, np.concatenate([row[name] for row in rows]))
    table = arrow.table(columns).replace_schema_metadata({FINGERPRINT: header.fingerprint.encode()})
    with atomic(path) as temporary:
        parquet.write_table(table, temporary)


def read_parquet(path: Path, header: Header) -> Iterator[Record]:
    """What ``write_parquet`` wrote. Raises ``ExportError`` when the shard states another tokenizer."""
    table: Any = optional("pyarrow.parquet").read_table(path)
    if (table.schema.metadata or {}).get(FINGERPRINT) != header.fingerprint.encode():
        raise ExportError(f"{path}: holds tokens of another tokenizer than its folder")
    lists = [field.name for field in table.schema if str(field.type).startswith("list")]
    rows = table.drop_columns(lists).to_pylist()
    parts = {name: table[name].combine_chunks() for name in lists}
    for i, row in enumerate(rows):
        arrays = {name: column[i].values.to_numpy() for name, column in parts.items()}
        yield record_of(row, tokens_of(arrays, header, row["num_samples"]))
