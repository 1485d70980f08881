"""Feature shards: a tensor (T, D) per utterance, in safetensors or Parquet, written atomically.

**safetensors**: one tensor per utterance, named by its key, in the order of the list. The metadata have ``encoder``,
``layer``, ``dtype``, and ``utterances``, a JSON list of ``key, file_name, num_samples, speaker`` in the same order. The
library can only write tensors that are in memory, so this module writes the format (an 8-byte length, a JSON header,
the data) in blocks. It reads with the library.

**Parquet**: one row per utterance and one row group per row, so that one utterance is in memory at a time. ``features``
holds the bytes of the tensor, row-major, little-endian: Parquet has no bfloat16, many readers lack its float16, and
``numpy.frombuffer`` takes bytes as they are. ``dtype``, ``encoder`` and ``layer`` are in the schema's metadata. A value
holds at most 2 GiB (7 hours of 768 numbers in float16).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from spintok._files import atomic
from spintok.corpus.token_formats import ShardError, load_pyarrow

__all__ = [
    "DTYPES",
    "LARGEST_PARQUET_VALUE",
    "RESERVED_KEY",
    "Dtype",
    "FeatureFormat",
    "FeatureKind",
    "FeatureRecord",
    "StoredFeatures",
    "feature_shard_path",
    "read_feature_shard",
    "to_bytes",
    "write_feature_shard",
]

FeatureFormat = Literal["safetensors", "parquet"]
Dtype = Literal["float16", "bfloat16", "float32"]
DTYPES: dict[Dtype, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}

_CODES: dict[Dtype, str] = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
RESERVED_KEY = "__metadata__"
_LARGEST_HEADER = 100_000_000
"""Bytes of the longest header that the safetensors library reads."""
LARGEST_PARQUET_VALUE = 2**31 - 2**20
"""Bytes of the largest value that a Parquet page can hold, with room for the page header."""
_BLOCK = 4096
"""Frames in memory at a time."""


@dataclass(frozen=True)
class FeatureKind:
    """What all features of a folder share.

    Attributes:
        encoder: the fingerprint of the encoder up to the layer.
        layer: the number of the layer; 0 is the input of the transformer.
        width: D.
        dtype: the dtype of the stored numbers.
    """

    encoder: str
    layer: int
    width: int
    dtype: Dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of one frame."""
        return self.width * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class FeatureRecord:
    """One utterance's features, (T, D) in the stored dtype."""

    key: str
    file_name: str
    features: Tensor
    num_samples: int
    speaker: str | None = None


@dataclass(frozen=True)
class StoredFeatures:
    """One utterance's features on disk; each call of ``blocks`` reads their bytes from the start."""

    key: str
    file_name: str
    num_frames: int
    blocks: Callable[[], Iterator[bytes]]
    num_samples: int
    speaker: str | None = None

    def load(self, kind: FeatureKind) -> FeatureRecord:
        """Read the features into memory. Raises ``ShardError`` when there are fewer than ``num_frames``."""
        features = torch.empty(self.num_frames, kind.width, dtype=DTYPES[kind.dtype])
        raw = features.view(torch.uint8).numpy().reshape(-1)
        at = 0
        for block in self.blocks():
            raw[at : at + len(block)] = np.frombuffer(block, np.uint8)
            at += len(block)
        if at != len(raw):
            raise ShardError(f"{self.key!r} has {at} bytes of features, not {len(raw)}")
        return FeatureRecord(self.key, self.file_name, features, self.num_samples, self.speaker)


def to_bytes(features: Tensor) -> bytes:
    """The bytes of a tensor (T, D) on any device, row by row."""
    return features.cpu().contiguous().view(torch.uint8).numpy().tobytes()


def feature_shard_path(folder: Path, index: int, format: FeatureFormat) -> Path:
    """The path of shard ``index`` of a feature folder."""
    return folder / f"features-{index:05d}.{format}"


def write_feature_shard(
    path: Path, records: Sequence[StoredFeatures], kind: FeatureKind, format: FeatureFormat
) -> None:
    """Write one shard atomically. Raises ``ShardError`` for what the format cannot hold."""
    match format:
        case "safetensors":
            _write_safetensors(path, records, kind)
        case "parquet":
            _write_parquet(path, records, kind)


def read_feature_shard(path: Path, kind: FeatureKind) -> list[StoredFeatures]:
    """The records of a shard in their order; their features stay on disk.

    Raises ``ShardError`` when the shard is damaged or holds features of another kind.
    """
    try:
        match path.suffix:
            case ".safetensors":
                return _read_safetensors(path, kind)
            case ".parquet":
                return _read_parquet(path, kind)
            case _:
                raise ShardError("a feature shard is a .safetensors or .parquet file")
    except Exception as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> ShardError:
    """What a failure to read a shard becomes: its libraries raise errors of many types."""
    return ShardError(f"{path}: not a feature shard of this encoder and layer: {error}")


def _guarded(path: Path, blocks: Callable[[], Iterator[bytes]]) -> Callable[[], Iterator[bytes]]:
    """The same blocks; a failure to read them is a ``ShardError``."""

    def guarded() -> Iterator[bytes]:
        try:
            yield from blocks()
        except Exception as error:
            raise _damaged(path, error) from None

    return guarded


def _stored(row: Mapping[str, Any], frames: int, blocks: Callable[[], Iterator[bytes]]) -> StoredFeatures:
    key, file_name, speaker, samples = (row[name] for name in ("key", "file_name", "speaker", "num_samples"))
    if not (isinstance(key, str) and isinstance(file_name, str) and isinstance(speaker, str | None)):
        raise TypeError("key, file_name and speaker are strings")
    if not isinstance(samples, int) or not isinstance(frames, int) or not 0 <= frames <= samples:
        raise ValueError(f"{key!r} has {frames!r} frames of {samples!r} samples")
    return StoredFeatures(key, file_name, frames, blocks, samples, speaker)


def _write_safetensors(path: Path, records: Sequence[StoredFeatures], kind: FeatureKind) -> None:
    utterances = [
        {"key": r.key, "file_name": r.file_name, "num_samples": r.num_samples, "speaker": r.speaker} for r in records
    ]
    metadata = {**_metadata(kind), "utterances": json.dumps(utterances, ensure_ascii=False)}
    header: dict[str, Any] = {RESERVED_KEY: metadata}
    end = 0
    for record in records:
        if record.key == RESERVED_KEY:
            raise ShardError(f"{record.file_name}: safetensors keeps the key {RESERVED_KEY} to itself; rename the file")
        start, end = end, end + record.num_frames * kind.row_bytes
        shape = [record.num_frames, kind.width]
        header[record.key] = {"dtype": _CODES[kind.dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False).encode()
    # The format asks for data at a multiple of 8 bytes, and allows spaces after the header.
    text += b" " * (-len(text) % 8)
    if len(text) > _LARGEST_HEADER:
        raise ShardError(f"{path}: too many utterances for a safetensors header; use a smaller --shard-size")
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for record in records:
            for block in record.blocks():
                file.write(block)
        if file.tell() != 8 + len(text) + end:
            raise ShardError(f"{path}: {file.tell() - 8 - len(text)} bytes of features where {end} were announced")


def _read_safetensors(path: Path, kind: FeatureKind) -> list[StoredFeatures]:
    file = safe_open(path, "pt")
    metadata = file.metadata() or {}
    _check(metadata, kind)
    records = []
    for row in json.loads(metadata["utterances"]):
        stored = file.get_slice(row["key"])
        frames, width = stored.get_shape()
        if (width, stored.get_dtype()) != (kind.width, _CODES[kind.dtype]):
            raise ShardError(f"{row['key']!r} is {width} numbers of {stored.get_dtype()} a frame")
        records.append(_stored(row, frames, _guarded(path, _slices(stored, frames))))
    if len(records) != len(file.keys()):
        raise ShardError(f"{len(file.keys())} tensors for {len(records)} utterances")
    return records


def _slices(stored: Any, frames: int) -> Callable[[], Iterator[bytes]]:
    return lambda: (to_bytes(stored[start : start + _BLOCK]) for start in range(0, frames, _BLOCK))


def _write_parquet(path: Path, records: Sequence[StoredFeatures], kind: FeatureKind) -> None:
    pyarrow, parquet = load_pyarrow()
    text, whole = pyarrow.string(), pyarrow.int64()
    columns = {"key": text, "file_name": text, "speaker": text, "num_samples": whole, "num_frames": whole}
    schema = pyarrow.schema({**columns, "width": whole, "features": pyarrow.binary()}, metadata=_metadata(kind))
    # Features hardly compress, and nobody queries their minima and maxima.
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with atomic(path) as temporary, parquet.ParquetWriter(temporary, schema, **plain) as writer:
        for record in records:
            if record.num_frames * kind.row_bytes > LARGEST_PARQUET_VALUE:
                raise ShardError(f"{record.file_name}: too long for a Parquet value of 2 GiB; use --format safetensors")
            row = {name: getattr(record, name) for name in columns}
            row |= {"width": kind.width, "features": b"".join(record.blocks())}
            writer.write_table(pyarrow.Table.from_pylist([row], schema=schema))


def _read_parquet(path: Path, kind: FeatureKind) -> list[StoredFeatures]:
    file = load_pyarrow()[1].ParquetFile(path)
    metadata = {name.decode(): value.decode() for name, value in (file.schema_arrow.metadata or {}).items()}
    _check(metadata, kind)
    if file.num_row_groups != file.metadata.num_rows:
        raise ShardError("a row group of a feature shard holds one row")
    names = ["key", "file_name", "num_frames", "num_samples", "speaker", "width"]
    records = []
    for index in range(file.num_row_groups):
        (row,) = file.read_row_group(index, names).to_pylist()
        if row["width"] != kind.width:
            raise ShardError(f"{row['key']!r} has another width")
        size = row["num_frames"] * kind.row_bytes
        group = file.metadata.row_group(index)
        # Before memory is allocated for them.
        if size > group.column(group.num_columns - 1).total_uncompressed_size:
            raise ShardError(f"{row['key']!r} has fewer features than its {row['num_frames']} frames")
        records.append(_stored(row, row["num_frames"], _guarded(path, _value(file, index, size))))
    return records


def _value(file: Any, index: int, size: int) -> Callable[[], Iterator[bytes]]:
    def blocks() -> Iterator[bytes]:
        value = file.read_row_group(index, ["features"])["features"][0].as_py()
        if len(value) != size:
            raise ShardError(f"row {index} of a feature shard has {len(value)} bytes of features, not {size}")
        yield value

    return blocks


def _metadata(kind: FeatureKind) -> dict[str, str]:
    return {"encoder": kind.encoder, "layer": str(kind.layer), "dtype": kind.dtype}


def _check(metadata: Mapping[str, str], kind: FeatureKind) -> None:
    for name, value in _metadata(kind).items():
        if metadata.get(name) != value:
            raise ShardError(f"its {name} is {metadata.get(name)!r}, not {value!r}")
