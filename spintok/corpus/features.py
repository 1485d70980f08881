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
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from spintok._files import encodable, open_locked
from spintok.corpus.cluster.run import Work, run_shared
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
from spintok.corpus.partial import Partial
from spintok.corpus.shard_record import check_shard
from spintok.corpus.shard_writer import ShardWriter
from spintok.corpus.token_formats import ShardError, load_pyarrow
from spintok.data.audio import Recording
from spintok.data.locations.base import is_url
from spintok.data.manifest import Utterance
from spintok.featurizer import Featurizer
from spintok.progress import Progress, no_progress
from spintok.tokenizer import Tokenizer

__all__ = ["FeatureOptions", "encode_features", "read_features"]

LAYOUT = 1
"""The version of the feature folder's layout."""

_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(JobOptions):
    """What the shards hold and how the work is divided.

    Attributes:
        layer: the layer of the tokenizer's encoder; 0 is the input of the transformer, and MFCC's only layer.
        dtype: the dtype of the stored numbers, rounded to nearest from float32.
        format: the format of the shards.
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
    *,
    work: Work | None = None,
) -> JobSummary:
    """Write the features of utterances to the folder or address ``output``; after a crash, the same call continues.

    Writes ``features-00000.safetensors`` and so on, ``features.json``, and ``failed.jsonl`` when files failed, such as
    those with features that the dtype cannot hold. Memory does not grow with the length of a recording (Parquet: the
    stored features of one recording are in memory). With ``options.shared``, ``work`` is what this process does in
    place of taking shards itself.

    Raises:
        CorpusError: the folder holds tokens, or the features of another encoder, layer, dtype, list or format, a shard
            is damaged, or another process is writing to it.
        ValueError: the encoder has no such layer, or the tokenizer has a latency.
        MissingPackageError: the format needs a package that is not installed.
    """
    if isinstance(tokenizer, Tokenizer) and tokenizer.latency is not None:
        raise ValueError("features are those of whole recordings: pass tokenizer.at(None)")
    if options.format == "parquet":
        load_pyarrow()
    kind = FeatureKind(
        tokenizer.encoder_fingerprint(options.layer), options.layer, tokenizer.encoder.num_features, options.dtype
    )
    summary = JobSummary()
    writer = _FeatureWriter(tokenizer, kind, options.format)
    if options.shared or is_url(output):
        store = open_store(output)
        run_shared(writer, tokenizer, utterances, store, options, summary, progress, lambda worker: {}, work)
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


class _Span(NamedTuple):
    """A piece of the scratch file: first byte, bytes, and their CRC-32."""

    start: int
    size: int
    crc32: int


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
        # Where the scratch file holds the features of each utterance, by key.
        self._spans: dict[str, list[_Span]] = {}

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
    ) -> Iterator[tuple[Utterance, StoredFeatures, int]]:
        for utterance, recording in batch.items():
            spans: list[_Span] = []
            samples = 0
            for part in self.tokenizer.iter_features([recording], [self.kind.layer], batch_seconds=0.0):
                (features,), (samples,) = part.features, part.samples
                self._append(features, spans)
                progress(utterance, samples)
            yield utterance, self._record(utterance, spans, samples), samples

    def encode_long(
        self, utterance: Utterance, recording: Recording, partial: Partial, progress: Callable[[Utterance, int], None]
    ) -> tuple[StoredFeatures, int]:
        state, samples, spans = None, 0, list[_Span]()
        for saved in partial.saved:
            if self._holds(held := [_Span(*span) for span in saved.values]):
                state, samples, spans = saved.state, saved.samples, held
                break

        def written() -> list[_Span]:
            # In the hands of the system before the file names it.
            self._file.flush()
            return spans

        progress(utterance, samples)
        for part in self.tokenizer.iter_parts(recording, [self.kind.layer], state):
            samples = part.samples
            self._append(part.layers[0], spans)
            progress(utterance, samples)
            partial.keep(samples, part.state, values=written)
        return self._record(utterance, spans, samples), samples

    @property
    def _file(self) -> IO[bytes]:
        assert self._scratch is not None
        return self._scratch

    def _append(self, features: Tensor, spans: list[_Span]) -> None:
        """Add features (T, D) to the scratch file and to the spans of an utterance."""
        block = to_bytes(self._rounded(features))
        start = self._file.seek(0, 2)
        last = spans[-1] if spans else None
        if last is not None and last.start + last.size == start:
            spans[-1] = _Span(last.start, last.size + len(block), zlib.crc32(block, last.crc32))
        elif block:
            spans.append(_Span(start, len(block), zlib.crc32(block)))
        self._file.write(block)

    def _record(self, utterance: Utterance, spans: list[_Span], samples: int) -> StoredFeatures:
        # In the hands of the system before the journal names it.
        self._file.flush()
        size = sum(span.size for span in spans)
        if self.format == "parquet" and size > LARGEST_PARQUET_VALUE:
            raise ShardError(f"{utterance.path}: too long for a Parquet value of 2 GiB; use --format safetensors")
        self._spans[utterance.key] = spans
        key, path, speaker = utterance.key, str(utterance.path), utterance.speaker
        frames = size // self.kind.row_bytes
        return StoredFeatures(key, path, frames, self._blocks(spans), num_samples=samples, speaker=speaker)

    def _rounded(self, features: Tensor) -> Tensor:
        rounded = features.to(DTYPES[self.kind.dtype])
        if not bool(torch.isfinite(rounded).all()):
            raise ValueError(
                f"layer {self.kind.layer} has features that are not finite in {self.kind.dtype}; "
                "bfloat16 and float32 hold larger numbers than float16"
            )
        return rounded

    def _blocks(self, spans: Sequence[_Span]) -> Callable[[], Iterator[bytes]]:
        """What reads spans of the scratch file, in blocks of bytes."""
        file = self._file

        def blocks() -> Iterator[bytes]:
            for span in spans:
                end = span.start + span.size
                for at in range(span.start, end, _BLOCK):
                    file.seek(at)
                    yield file.read(min(_BLOCK, end - at))

        return blocks

    def _holds(self, spans: Sequence[_Span]) -> bool:
        """Whether the scratch file holds what the spans say."""
        for span in spans:
            checksum = size = 0
            for block in self._blocks([span])():
                checksum, size = zlib.crc32(block, checksum), size + len(block)
            if (checksum, size) != (span.crc32, span.size):
                return False
        return True

    def write(self, shard: Path, records: Sequence[StoredFeatures]) -> None:
        write_feature_shard(shard, records, self.kind, self.format)

    def to_entry(self, record: StoredFeatures) -> dict[str, Any]:
        return {
            "key": record.key,
            "file_name": record.file_name,
            "speaker": record.speaker,
            "num_samples": record.num_samples,
            "num_frames": record.num_frames,
            "spans": self._spans[record.key],
        }

    def from_entry(self, entry: Mapping[str, Any]) -> StoredFeatures:
        frames, spans = int(entry["num_frames"]), [_Span(*map(int, span)) for span in entry["spans"]]
        if sum(span.size for span in spans) != frames * self.kind.row_bytes or not self._holds(spans):
            raise ValueError("the scratch file does not hold these features")
        samples = int(entry["num_samples"])
        return StoredFeatures(entry["key"], entry["file_name"], frames, self._blocks(spans), samples, entry["speaker"])


def _scratch_path(shard: Path) -> Path:
    return shard.with_name(f".{shard.name}.data")
