"""Token shards on disk: one record an utterance, in JSON lines, Parquet, or fairseq's .km, written atomically."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spintok._files import atomic
from spintok.tokens import Tokens

__all__ = [
    "FORMATS",
    "Format",
    "Record",
    "ShardError",
    "check_format",
    "load_parquet",
    "read_shard",
    "shard_path",
    "write_shard",
]

Format = Literal["jsonl", "parquet", "km"]
FORMATS: tuple[Format, ...] = ("jsonl", "parquet", "km")


class ShardError(ValueError):
    """A token folder or shard that cannot be used; the message names it and the cause."""


@dataclass(frozen=True)
class Record:
    """One utterance's tokens as they are stored.

    Attributes:
        key: unique in the corpus.
        file_name: the audio file as it was listed.
        tokens: by codebook name, the primary first.
        speaker: when known.
    """

    key: str
    file_name: str
    tokens: Mapping[str, Tokens]
    speaker: str | None = None


def check_format(format: Format) -> None:
    """Raise ``ShardError`` now if shards of this format could not be written later."""
    if format == "parquet":
        load_parquet()


def shard_path(folder: Path, index: int, format: Format) -> Path:
    """Where shard ``index`` of a token folder lies."""
    return folder / f"tokens-{index:05d}.{format}"


def write_shard(path: Path, records: Sequence[Record], format: Format, *, dedup: bool) -> None:
    """Write one shard so that it appears whole or not at all.

    With ``dedup`` a record holds the code and the duration of each run, without it a code a frame.
    """
    match format:
        case "jsonl":
            with atomic(path) as temporary:
                lines = (json.dumps(_row(record, dedup), ensure_ascii=False) + "\n" for record in records)
                temporary.write_text("".join(lines), encoding="utf-8")
        case "parquet":
            _write_parquet(path, [_row(record, dedup) for record in records])
        case "km":
            if dedup:
                raise ShardError("a .km file holds a code a frame: durations would be lost; add --no-dedup")
            _write_km(path, records)


def read_shard(path: Path, sizes: Mapping[str, int]) -> list[Record]:
    """The records of a shard in their order; ``sizes`` gives K of each codebook by name."""
    match path.suffix:
        case ".jsonl":
            rows = [_json_line(path, line) for line in path.read_text(encoding="utf-8").splitlines()]
        case ".parquet":
            rows = load_parquet().read_table(path).to_pylist()
        case ".km":
            rows = _km_rows(path)
        case _:
            raise ShardError(f"{path}: a token shard is a .jsonl, .parquet or .km file")
    try:
        return [_record(row, sizes) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise ShardError(f"{path}: not a token shard of this tokenizer: {error}") from None


def _prefix(name: str) -> str:
    return "" if name == "primary" else f"{name}_"


def _row(record: Record, dedup: bool) -> dict[str, Any]:
    first = next(iter(record.tokens.values()))
    row: dict[str, Any] = {
        "key": record.key,
        "file_name": record.file_name,
        "speaker": record.speaker,
        "num_samples": first.num_samples,
        "num_frames": first.num_frames,
    }
    for name, tokens in record.tokens.items():
        row[_prefix(name) + "units"] = (tokens.units if dedup else tokens.codes).tolist()
        if dedup:
            row[_prefix(name) + "duration"] = tokens.durations.tolist()
    return row


def _record(row: Mapping[str, Any], sizes: Mapping[str, int]) -> Record:
    tokens = {}
    for name, size in sizes.items():
        units, durations = row[_prefix(name) + "units"], row.get(_prefix(name) + "duration")
        samples = row["num_samples"]
        if durations is None:
            tokens[name] = Tokens(units, size, samples)
        else:
            tokens[name] = Tokens.from_runs(units, durations, size, samples)
        if tokens[name].num_frames != row["num_frames"]:
            raise ValueError(f"{row['key']!r} has {tokens[name].num_frames} codes for {row['num_frames']} frames")
    return Record(row["key"], row["file_name"], tokens, row["speaker"])


def _json_line(path: Path, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ShardError(f"{path}: a line is not JSON ({error})") from None
    if not isinstance(row, dict):
        raise ShardError(f"{path}: a line is not a JSON object")
    return row


def load_parquet() -> Any:
    """``pyarrow.parquet``. Raises ``ShardError`` where it cannot be imported."""
    try:
        from pyarrow import parquet
    except (ImportError, OSError, RuntimeError) as error:
        raise ShardError(f"Parquet needs pyarrow ({error}): pip install 'spintok[export]'") from None
    return parquet


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    parquet = load_parquet()
    import pyarrow

    lists = {name for row in rows for name, value in row.items() if isinstance(value, list)}
    kinds = {"num_samples": pyarrow.int64(), "num_frames": pyarrow.int64()}
    fields = ["key", "file_name", "speaker", "num_samples", "num_frames", *sorted(lists)]
    schema = pyarrow.schema(
        (name, pyarrow.list_(pyarrow.int32()) if name in lists else kinds.get(name, pyarrow.string()))
        for name in fields
    )
    with atomic(path) as temporary:
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), temporary)


def _write_km(path: Path, records: Sequence[Record]) -> None:
    """fairseq's pair: the list of files, then a line of codes for each, so that a .km is never without its list."""
    for record in records:
        if any(mark in record.file_name for mark in "\t\n\r"):
            raise ShardError(f"{record.file_name!r}: a .tsv cannot hold this name; use another --format")
    rows = "".join(f"{record.file_name}\t{next(iter(record.tokens.values())).num_samples}\n" for record in records)
    with atomic(path.with_suffix(".tsv")) as temporary:
        temporary.write_text(f"/\n{rows}", encoding="utf-8")
    with atomic(path) as temporary:
        lines = (" ".join(map(str, next(iter(record.tokens.values())).codes.tolist())) + "\n" for record in records)
        temporary.write_text("".join(lines), encoding="utf-8")


def _km_rows(path: Path) -> list[dict[str, Any]]:
    names = path.with_suffix(".tsv").read_text(encoding="utf-8").splitlines()[1:]
    lines = path.read_text(encoding="utf-8").splitlines()
    if len(names) != len(lines):
        raise ShardError(f"{path}: {len(lines)} lines for {len(names)} files in its .tsv")
    rows = []
    for name, line in zip(names, lines, strict=True):
        file_name, _, samples = name.rpartition("\t")
        units = [int(code) for code in line.split()]
        row = {"key": file_name, "file_name": file_name, "speaker": None, "num_samples": int(samples)}
        rows.append(row | {"num_frames": len(units), "units": units})
    return rows
