"""Rows of Parquet files with audio as Hugging Face stores it: a column of structs ``{bytes, path}``."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from spintok._files import require
from spintok.data.locations.base import LocalAudio, Location, LocationError, Recent, Source, TemporaryCopy, source_from
from spintok.data.locations.remote import File, file_source, open_file

__all__ = ["ParquetError", "ParquetRow", "parquet_rows"]

_GROUPS = Recent[Any](3)
"""Row groups that were read: the rows of one usually follow each other."""

_READING = threading.Lock()


class ParquetError(LocationError):
    """A Parquet file without audio, or a damaged one."""


@dataclass(frozen=True)
class ParquetRow(Location):
    """A row of a column of audio.

    Attributes:
        file: the Parquet file.
        column: holds structs with the field ``bytes``.
        row: the number of the row, from 0; -1 stands for a damaged file as a whole.
        name: the audio file's name, as the field ``path`` has it; "" if unknown.
    """

    file: File
    column: str
    row: int
    name: str = field(default="", compare=False)

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix.lower()

    def __str__(self) -> str:
        return f"parquet://{self.row}/{self.column}::{self.file}"

    def source(self) -> Source:
        size, version = file_source(self.file)
        return source_from(size, version, self.row)

    def local(self) -> LocalAudio:
        found = self._value()
        data = found.get("bytes") if isinstance(found, dict) else None
        if not isinstance(data, bytes):
            raise ParquetError(f"row {self.row} of {self.file} holds no bytes of audio")
        return TemporaryCopy.of([data], PurePosixPath(found.get("path") or "").suffix.lower())

    def _value(self) -> dict[str, Any]:
        source = file_source(self.file)
        group, first = self._group(source)
        column = _GROUPS.get((str(self.file), source, self.column, group), lambda: self._read(group))
        value: dict[str, Any] = column[self.row - first].as_py()
        return value

    def _group(self, source: Source) -> tuple[int, int]:
        """The row group that holds the row, and its first row."""
        first = 0
        if self.row < 0:
            # What stands for a damaged file in a list: say how it is damaged.
            for _ in parquet_rows(self.file, ()):
                pass
        layout = _layout(self.file, source)
        if self.row >= 0 and self.column not in layout.columns.names:
            raise ParquetError(f"{self.file} has no column {self.column!r}, only {', '.join(layout.columns.names)}")
        for group, rows in enumerate(layout.groups):
            if self.row < first + rows:
                return group, first
            first += rows
        raise ParquetError(f"{self.file} has {first} rows, and no row {self.row}")

    def _read(self, group: int) -> Any:
        with _READING, _opened(self.file) as parquet, _errors(self.file):
            return parquet.read_row_group(group, columns=[self.column]).column(self.column)


@dataclass(frozen=True)
class _Layout:
    """The columns of a Parquet file, and the rows of each row group."""

    columns: Any
    groups: tuple[int, ...]


_LAYOUTS = Recent[_Layout](64)


def parquet_rows(file: File, fields: Sequence[str]) -> Iterator[tuple[ParquetRow, dict[str, Any]]]:
    """The rows of a file, without their audio.

    Args:
        file: the Parquet file.
        fields: columns whose values are wanted; those that the file has are given.

    Raises:
        ParquetError: it has no column of audio, or is damaged.
        OSError: it cannot be read.
        MissingPackageError: pyarrow is not installed.
    """
    layout = _layout(file, file_source(file))
    column = _audio_column(file, layout.columns)
    kind = layout.columns.field(column).type
    names = [name for name in fields if name in layout.columns.names and name != column]
    path = [f"{column}.path"] if kind.get_field_index("path") >= 0 else []
    row = 0
    with _opened(file) as parquet:
        for group, count in enumerate(layout.groups):
            with _errors(file):
                found = parquet.read_row_group(group, columns=[*path, *names]).to_pylist() if path or names else []
            for values in found or [{}] * count:
                name = (values.pop(column, None) or {}).get("path") or ""
                yield ParquetRow(file, column, row, name), values
                row += 1


def _audio_column(file: File, columns: Any) -> str:
    """The column of structs with bytes: ``audio``, or the first."""
    pyarrow = _pyarrow()

    def holds_audio(kind: Any) -> bool:
        if not pyarrow.types.is_struct(kind) or (index := kind.get_field_index("bytes")) < 0:
            return False
        inner = kind.field(index).type
        return bool(pyarrow.types.is_binary(inner) or pyarrow.types.is_large_binary(inner))

    found = [column.name for column in columns if holds_audio(column.type)]
    if not found:
        raise ParquetError(
            f"{file}: no column of audio: one of structs {{bytes, path}}, as Hugging Face stores it; it has "
            f"{', '.join(columns.names) or 'none'}"
        )
    return "audio" if "audio" in found else str(found[0])


def _layout(file: File, source: Source) -> _Layout:
    return _LAYOUTS.get((str(file), source), lambda: _read_layout(file))


def _read_layout(file: File) -> _Layout:
    with _opened(file) as parquet, _errors(file):
        metadata = parquet.metadata
        return _Layout(
            parquet.schema_arrow, tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        )


@contextmanager
def _opened(file: File) -> Iterator[Any]:
    parquet = require("pyarrow.parquet", extra="export", purpose="Parquet")
    with open_file(file) as stream, _errors(file):
        opened = parquet.ParquetFile(stream)
        yield opened


@contextmanager
def _errors(file: File) -> Iterator[None]:
    """What pyarrow raises for a damaged file, as ``ParquetError``; errors of reading stay."""
    try:
        yield
    except (_pyarrow().ArrowException, UnicodeDecodeError) as error:
        raise ParquetError(f"{file}: damaged: {' '.join(str(error).split())}") from None


def _pyarrow() -> Any:
    return require("pyarrow", extra="export", purpose="Parquet")
