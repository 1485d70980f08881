"""Token formats: one record per utterance, in JSON lines, Parquet, or fairseq's .km, written atomically."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from spintok._files import encodable
from spintok.corpus.token_formats.jsonl import read_jsonl, record_of_row, row_of, write_jsonl
from spintok.corpus.token_formats.km import codes_line, manifest_line, read_km, write_km
from spintok.corpus.token_formats.parquet import load_pyarrow, read_parquet, write_parquet
from spintok.corpus.token_formats.record import (
    Layout,
    Record,
    ShardError,
    TokenLayout,
    array_names,
    arrays_of,
    record_of,
    tokens_of,
    utterance_of,
)
from spintok.frames import GRID, FrameGrid
from spintok.tokens import Tokens

__all__ = [
    "FORMATS",
    "Format",
    "Layout",
    "Record",
    "ShardError",
    "TokenLayout",
    "array_names",
    "arrays_of",
    "check_format",
    "check_names",
    "codes_line",
    "load_pyarrow",
    "manifest_line",
    "read_km",
    "read_parquet",
    "read_shard",
    "record_of_row",
    "row_of",
    "shard_files",
    "shard_path",
    "tokens_of",
    "utterance_of",
    "write_parquet",
    "write_shard",
]

Format = Literal["jsonl", "parquet", "km"]
FORMATS: tuple[Format, ...] = ("jsonl", "parquet", "km")


def check_format(format: Format) -> None:
    """Raise ``MissingPackageError`` when shards of this format cannot be written here."""
    if format == "parquet":
        load_pyarrow()


def shard_path(folder: Path, index: int, format: Format) -> Path:
    """The path of shard ``index`` of a token folder."""
    return folder / f"tokens-{index:05d}.{format}"


def shard_files(shard: Path) -> list[Path]:
    """All files of a shard: a .km comes with its .tsv."""
    return [shard.with_suffix(".tsv"), shard] if shard.suffix == ".km" else [shard]


def check_names(names: Iterable[str], format: Format) -> None:
    """Raise ``ShardError`` when shards of this format cannot hold these keys, paths and speakers."""
    for name in names:
        if format == "parquet" and not encodable(name):
            raise ShardError(f"{name!r}: not UTF-8, and Parquet holds no other text; rename it or use --format jsonl")
        if format == "km":
            manifest_line(name, 0)


def write_shard(
    path: Path,
    records: Sequence[Record],
    format: Format,
    *,
    dedup: bool,
    codebooks: Mapping[str, int] | None = None,
) -> None:
    """Write one shard atomically.

    Args:
        path: the shard; see ``shard_path``.
        records: the records, in the order of the shard.
        format: the format of the shard.
        dedup: store the code and the duration of each run, or a code per frame.
        codebooks: K of each codebook to write; those of the first record by default.
    """
    if codebooks is None:
        codebooks = {name: tokens.codebook_size for record in records[:1] for name, tokens in record.tokens.items()}
    layout = TokenLayout(codebooks, dedup)
    match format:
        case "jsonl":
            write_jsonl(path, records, layout)
        case "parquet":
            write_parquet(path, records, layout, sort_arrays=True, num_frames=True)
        case "km":
            if dedup:
                raise ShardError("a .km file holds a code per frame: durations would be lost; add --no-dedup")
            write_km(path, records)


def read_shard(path: Path, codebooks: Mapping[str, int], grid: FrameGrid = GRID) -> list[Record]:
    """The records of a shard in their order.

    Args:
        path: the shard.
        codebooks: K of each codebook by name.
        grid: where the frames lie; shards do not say it.

    Raises:
        ShardError: the shard is missing or damaged, or holds other codebooks.
    """
    match path.suffix:
        case ".jsonl":
            return read_jsonl(path, codebooks, grid)
        case ".parquet":
            return _read_parquet(path, codebooks, grid)
        case ".km":
            return _read_km(path, codebooks, grid)
        case _:
            raise ShardError(f"{path}: a token shard is a .jsonl, .parquet or .km file")


def _read_parquet(path: Path, codebooks: Mapping[str, int], grid: FrameGrid) -> list[Record]:
    _, rows = read_parquet(path)
    try:
        return [record_of(row, arrays, codebooks, grid) for row, arrays in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise ShardError(f"{path}: not a token shard of this tokenizer: {error}") from None


def _read_km(path: Path, codebooks: Mapping[str, int], grid: FrameGrid) -> list[Record]:
    """A .km has no keys and one codebook; the path is the key."""
    ((name, size),) = codebooks.items()
    try:
        return [
            Record(file, file, {name: Tokens(codes, size, samples, grid)})
            for file, samples, codes in read_km(path.with_suffix(".tsv"), path)
        ]
    except ValueError as error:
        if isinstance(error, ShardError):
            raise
        raise ShardError(f"{path}: not a token shard of this tokenizer: {error}") from None
