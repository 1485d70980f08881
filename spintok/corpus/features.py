"""A list of utterances to a folder of feature shards, for models that read features instead of codes, and back.

``spintok.corpus.job`` makes it resumable. Every recording goes through the encoder alone, on a GPU too: codes hide the
rounding differences between batches, features would show them.
"""

import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from spintok._files import encodable, open_locked
from spintok.corpus.cluster.run import run_shared
from spintok.corpus.cluster.store import open_store
from spintok.corpus.errors import CorpusError
from spintok.corpus.feature_formats import (
    DTYPES,
    LARGEST_PARQUET_VALUE,
    RESERVED_KEY,
    Dtype,
    FeatureFormat,
    FeatureKind,
    FeatureRecord,
    StoredFeatures,
    feature_shard_path,
    read_feature_shard,
    to_bytes,
    write_feature_shard,
)
from spintok.corpus.folder import read_description, shard_paths
from spintok.corpus.job import run_job
from spintok.corpus.job_options import JobOptions
from spintok.corpus.job_summary import JobSummary
from spintok.corpus.shard_record import check_shard
from spintok.corpus.shard_writer import ShardWriter
from spintok.corpus.token_formats import ShardError, load_pyarrow
from spintok.data.audio import Recording
from spintok.data.manifest import Utterance
from spintok.data.remote import is_url
from spintok.featurizer import Featurizer
from spintok.progress import Progress, no_progress

__all__ = ["FeatureOptions", "encode_features", "read_features"]

LAYOUT = 1
"""The version of the feature folder's layout."""

_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(JobOptions):
    """What the shards hold and how the work is divided.

    Attributes:
        layer: of the tokenizer's encoder; 0 is the input of the transformer, and the features of an MFCC tokenizer.
        dtype: of the stored numbers, rounded to nearest from float32.
        format: of the shards.
    """

    layer: int
    dtype: Dtype = "float16"
    format: FeatureFormat = "safetensors"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dtype not in DTYPES:
            raise ValueError(f"features are stored as {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.format not in ("safetensors", "parquet"):
            raise ValueError(f"features go to safetensors or parquet, got {self.format!r}")


def encode_features(
    tokenizer: Featurizer,
    utterances: Sequence[Utterance],
    output: Path | str,
    options: FeatureOptions,
    progress: Progress = no_progress,
) -> JobSummary:
    """Write the features of utterances to the folder or address ``output``; after a crash, the same call continues.

    Writes ``features-00000.safetensors`` and so on, ``features.json``, and ``failed.jsonl`` when files failed, such as
    those with features that the dtype cannot hold. Memory does not grow with the length of a recording (Parquet: the
    stored features of one recording are in memory).

    Raises:
        CorpusError: the folder holds tokens, or the features of another encoder, layer, dtype, list or format, a shard
            is damaged, or another process is writing to it.
        ValueError: the encoder has no such layer.
        MissingPackageError: the format needs a package that is not installed.
    """
    if options.format == "parquet":
        load_pyarrow()
    kind = FeatureKind(
        tokenizer.encoder_fingerprint(options.layer), options.layer, tokenizer.encoder.num_features, options.dtype
    )
    summary = JobSummary()
    writer = _FeatureWriter(tokenizer, kind, options.format)
    if options.shared or is_url(output):
        run_shared(writer, tokenizer, utterances, open_store(output), options, summary, progress, lambda worker: {})
    else:
        run_job(writer, tokenizer, utterances, Path(output), options, summary, progress)
    return summary


def read_features(folder: Path) -> tuple[dict[str, Any], Iterator[FeatureRecord]]:
    """The description of a feature folder (its ``features.json``) and its records in order, one in memory at a time.

    Every shard is compared with its recorded SHA-256 before it is read.

    Raises:
        CorpusError: not a feature folder, or shards are missing.
        ShardError: a shard is damaged; raised while iterating.
    """
    description = read_description(folder, "features")
    try:
        kind = FeatureKind(
            description["encoder"], int(description["layer"]), int(description["width"]), description["dtype"]
        )
        DTYPES[kind.dtype]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise CorpusError(f"{folder}/features.json: damaged ({error!r})") from None
    return description, _records(shard_paths(folder, "features", description), kind)


def _records(shards: Sequence[Path], kind: FeatureKind) -> Iterator[FeatureRecord]:
    for shard in shards:
        check_shard(shard, [shard])
        for stored in read_feature_shard(shard, kind):
            yield stored.load(kind)


class _FeatureWriter(ShardWriter[StoredFeatures]):
    """Shards of features. Until a shard is written, its features are in a scratch file beside it, not in memory."""

    stem = "features"
    mismatches = {  # noqa: RUF012
        "layer": "the features of another layer",
        "encoder": "the features of another encoder",
        "dtype": "features of another dtype",
        "format": "shards of another format",
    }

    def __init__(self, tokenizer: Featurizer, kind: FeatureKind, format: FeatureFormat) -> None:
        self.tokenizer = tokenizer
        self.kind = kind
        self.format = format
        self._scratch: IO[bytes] | None = None
        # Start in the scratch file and CRC-32 of each utterance's features, by key.
        self._spans: dict[str, tuple[int, int]] = {}

    def describe(self) -> dict[str, Any]:
        return {
            "spintok_features": LAYOUT,
            "tokenizer": self.tokenizer.name,
            "encoder": self.kind.encoder,
            "layer": self.kind.layer,
            "width": self.kind.width,
            "dtype": self.kind.dtype,
            "sample_rate": self.tokenizer.sample_rate,
            "frame_rate": self.tokenizer.frame_rate,
            "receptive_field": self.tokenizer.grid.reach,
            "format": self.format,
        }

    def path(self, folder: Path, index: int) -> Path:
        return feature_shard_path(folder, index, self.format)

    def check(self, utterance: Utterance) -> None:
        names = (utterance.key, str(utterance.path), utterance.speaker or "")
        if not all(map(encodable, names)):
            raise ShardError(f"{utterance.path!s}: not UTF-8, and shards of features hold no other text; rename it")
        if self.format == "safetensors" and utterance.key == RESERVED_KEY:
            raise ShardError(f"{utterance.path}: safetensors reserves the key {RESERVED_KEY}; rename the file")

    def read(self, shard: Path) -> dict[str, StoredFeatures]:
        return {stored.key: stored for stored in read_feature_shard(shard, self.kind)}

    @contextmanager
    def scratch(self, shard: Path) -> Iterator[None]:
        with os.fdopen(open_locked(_scratch_path(shard)), "r+b") as file:
            self._scratch = file
            yield
        self._scratch = None
        self._spans.clear()

    def discard_scratch(self, shard: Path) -> None:
        _scratch_path(shard).unlink(missing_ok=True)

    def encode(
        self, batch: Mapping[Utterance, Recording], progress: Callable[[Utterance, int], None]
    ) -> list[tuple[StoredFeatures, int]]:
        return [self._encode(utterance, recording, progress) for utterance, recording in batch.items()]

    def _encode(
        self, utterance: Utterance, recording: Recording, progress: Callable[[Utterance, int], None]
    ) -> tuple[StoredFeatures, int]:
        file = self._scratch
        assert file is not None
        start = file.seek(0, 2)
        frames = samples = checksum = 0
        for batch in self.tokenizer.iter_features([recording], [self.kind.layer], batch_seconds=0.0):
            (features,), (samples,) = batch.features, batch.samples
            block = to_bytes(self._rounded(features))
            checksum = zlib.crc32(block, checksum)
            file.write(block)
            frames += len(features)
            progress(utterance, samples)
        # In the hands of the system before the journal names it.
        file.flush()
        if self.format == "parquet" and frames * self.kind.row_bytes > LARGEST_PARQUET_VALUE:
            raise ShardError(f"{utterance.path}: too long for a Parquet value of 2 GiB; use --format safetensors")
        self._spans[utterance.key] = start, checksum
        blocks = self._blocks(start, frames)
        key, path, speaker = utterance.key, str(utterance.path), utterance.speaker
        return StoredFeatures(key, path, frames, blocks, num_samples=samples, speaker=speaker), samples

    def _rounded(self, features: Tensor) -> Tensor:
        rounded = features.to(DTYPES[self.kind.dtype])
        if not bool(torch.isfinite(rounded).all()):
            raise ValueError(
                f"layer {self.kind.layer} has features that are not finite in {self.kind.dtype}; "
                "bfloat16 and float32 hold larger numbers than float16"
            )
        return rounded

    def _blocks(self, start: int, frames: int) -> Any:
        """What reads the features of ``frames`` frames from the scratch file, in blocks of bytes."""
        file = self._scratch
        assert file is not None

        def blocks() -> Iterator[bytes]:
            end = start + frames * self.kind.row_bytes
            for at in range(start, end, _BLOCK):
                file.seek(at)
                yield file.read(min(_BLOCK, end - at))

        return blocks

    def write(self, shard: Path, records: Sequence[StoredFeatures]) -> None:
        write_feature_shard(shard, records, self.kind, self.format)

    def to_entry(self, record: StoredFeatures) -> dict[str, Any]:
        start, checksum = self._spans[record.key]
        return {
            "key": record.key,
            "file_name": record.file_name,
            "speaker": record.speaker,
            "num_samples": record.num_samples,
            "num_frames": record.num_frames,
            "start": start,
            "crc32": checksum,
        }

    def from_entry(self, entry: Mapping[str, Any]) -> StoredFeatures:
        frames = int(entry["num_frames"])
        blocks = self._blocks(int(entry["start"]), frames)
        checksum = size = 0
        for block in blocks():
            checksum, size = zlib.crc32(block, checksum), size + len(block)
        if (checksum, size) != (entry["crc32"], frames * self.kind.row_bytes):
            raise ValueError("the scratch file does not hold these features")
        return StoredFeatures(
            entry["key"], entry["file_name"], frames, blocks, int(entry["num_samples"]), entry["speaker"]
        )


def _scratch_path(shard: Path) -> Path:
    return shard.with_name(f".{shard.name}.data")
