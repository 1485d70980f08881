"""Token shards in JSON lines: one object per utterance."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spintok._files import atomic, json_line, read_json_lines
from spintok.corpus.token_formats.record import (
    Layout,
    Record,
    ShardError,
    arrays_of,
    record_of,
    utterance_of,
)
from spintok.frames import GRID, FrameGrid

__all__ = ["read_jsonl", "record_of_row", "row_of", "write_jsonl"]


def write_jsonl(path: Path, records: Sequence[Record], layout: Layout) -> None:
    """Write one shard atomically."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        for record in records:
            file.write(json_line(row_of(record, layout)).encode())


def read_jsonl(path: Path, codebooks: Mapping[str, int], grid: FrameGrid = GRID) -> list[Record]:
    """The records of a shard in their order. Raises ``ShardError``."""
    try:
        return [record_of_row(row, codebooks, grid) for row in read_json_lines(path)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ShardError(f"{path}: not a token shard of this tokenizer: {error}") from None


def row_of(record: Record, layout: Layout) -> dict[str, Any]:
    """``key``, ``file_name``, ``speaker``, ``num_samples``, ``num_frames``, and the arrays as lists."""
    frames = next(iter(record.tokens.values())).num_frames
    arrays = {name: array.tolist() for name, array in arrays_of(record, layout).items()}
    return {**utterance_of(record), "num_frames": frames, **arrays}


def record_of_row(row: Any, codebooks: Mapping[str, int], grid: FrameGrid = GRID) -> Record:
    """The inverse of ``row_of``. Raises ``ValueError``, ``KeyError`` or ``TypeError`` for anything else."""
    if not isinstance(row, dict):
        raise ValueError("a line is not a JSON object")
    return record_of(row, row, codebooks, grid)
