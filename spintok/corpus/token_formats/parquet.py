"""Tokens in Parquet: one row per utterance, codes as lists of int32."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spintok._files import atomic, require
from spintok.corpus.token_formats.record import Layout, Record, ShardError, array_names, arrays_of, utterance_of

__all__ = ["TEXT", "load_pyarrow", "read_parquet", "write_parquet"]

TEXT = ("key", "file_name", "speaker")


def load_pyarrow() -> tuple[Any, Any]:
    """``pyarrow`` and ``pyarrow.parquet``. Raises ``MissingPackageError``."""
    parquet = require("pyarrow.parquet", extra="export", purpose="Parquet")
    return require("pyarrow", extra="export", purpose="Parquet"), parquet


def write_parquet(
    path: Path,
    records: Sequence[Record],
    layout: Layout,
    *,
    sort_arrays: bool = False,
    num_frames: bool = False,
    metadata: Mapping[bytes, bytes] | None = None,
) -> None:
    """Write one file atomically.

    Args:
        path: the file.
        records: its rows.
        layout: the codebooks to write, and whether as runs.
        sort_arrays: order the columns of ``arrays_of`` by name instead of by codebook.
        num_frames: add a column of this name.
        metadata: the metadata of the schema.
    """
    arrow, parquet = load_pyarrow()
    utterances = [utterance_of(record) for record in records]
    columns = {name: arrow.array([row[name] for row in utterances], arrow.string()) for name in TEXT}
    columns["num_samples"] = arrow.array([row["num_samples"] for row in utterances], arrow.int64())
    if num_frames:
        frames = [next(iter(record.tokens.values())).num_frames for record in records]
        columns["num_frames"] = arrow.array(frames, arrow.int64())
    rows = [arrays_of(record, layout) for record in records]
    names = array_names(layout)
    for name in sorted(names) if sort_arrays else names:
        # Whole arrays: lists of Python integers would take ten times as long.
        offsets = arrow.array(np.cumsum([0, *(row[name].size for row in rows)]), arrow.int32())
        values = np.concatenate([np.zeros(0, dtype=np.int32), *(row[name] for row in rows)])
        columns[name] = arrow.ListArray.from_arrays(offsets, values)
    with atomic(path) as temporary:
        parquet.write_table(arrow.table(columns).replace_schema_metadata(metadata), temporary)


def read_parquet(path: Path) -> tuple[Mapping[bytes, bytes], Iterator[tuple[dict[str, Any], dict[str, Any]]]]:
    """The schema's metadata, and for each row its plain values and its arrays, (R,) int32, by column name.

    Raises:
        ShardError: the file is missing or damaged, or a column of arrays is not one of integers.
    """
    arrow, parquet = load_pyarrow()
    try:
        table = parquet.read_table(path)
        lists = [field.name for field in table.schema if arrow.types.is_list(field.type)]
        arrays = {name: table[name].combine_chunks() for name in lists}
        rows = table.drop_columns(lists).to_pylist()
        for name, column in arrays.items():
            if not arrow.types.is_integer(column.type.value_type) or column.null_count or column.values.null_count:
                raise ShardError(f"{path}: {name} holds something else than lists of integers")
    except (OSError, UnicodeDecodeError, arrow.ArrowException) as error:
        raise ShardError(f"{path}: cannot be read as Parquet: {str(error).strip()}") from None
    return table.schema.metadata or {}, (
        (row, {name: column[i].values.to_numpy() for name, column in arrays.items()}) for i, row in enumerate(rows)
    )
