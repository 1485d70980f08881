"""A list of utterances to a folder of feature shards, for models that read features instead of codes.

The books are those of tokens (``spintok.corpus.job``). Every recording runs through the encoder alone, on a GPU too:
codes hide the rounding that differs with the batch, features would show it.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from spintok.corpus.feature_formats import (
    DTYPES,
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
from spintok.corpus.job import CorpusError, JobOptions, JobProgress, JobSummary, ShardWriter, read_description, run_job
from spintok.corpus.token_formats import ShardError, load_pyarrow
from spintok.data.audio import Recording
from spintok.data.manifest import Utterance
from spintok.tokenizer import Tokenizer

__all__ = ["FeatureOptions", "encode_features", "read_features"]

LAYOUT = 1
"""The version of the feature folder's layout."""

_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(JobOptions):
    """What the shards hold and how the work is shared.

    Attributes:
        layer: of the tokenizer's encoder, from 0, the transformer's input; 0 for MFCC.
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
    tokenizer: Tokenizer,
    utterances: Sequence[Utterance],
    output: Path,
    options: FeatureOptions,
    progress: JobProgress = lambda utterances, seconds: None,
) -> JobSummary:
    """Write the features of utterances into the folder ``output``; run again after a crash, it goes on.

    Writes ``features-00000.safetensors`` and so on, ``features.json``, and ``failed.jsonl`` when files failed.
    Memory does not grow with a recording's length (Parquet: one recording's stored features are held).

    Raises:
        CorpusError: the folder holds tokens, or the features of another encoder, layer, dtype, list or format; or
            a feature has no finite value in the dtype.
        ValueError: the encoder has no such layer.
    """
    if options.format == "parquet":
        load_pyarrow()
    kind = FeatureKind(
        tokenizer.encoder_fingerprint(options.layer), options.layer, tokenizer.encoder.num_features, options.dtype
    )
    summary = JobSummary()
    run_job(_Features(tokenizer, kind, options.format), tokenizer, utterances, output, options, summary, progress)
    return summary


def read_features(folder: Path) -> tuple[dict[str, Any], Iterator[FeatureRecord]]:
    """A feature folder's description (its ``features.json``) and its records, one in memory at a time, in order.

    Raises ``CorpusError`` for a folder of something else, and ``ShardError`` for a damaged shard.
    """
    description = read_description(folder, "features")
    try:
        kind = FeatureKind(
            description["encoder"], int(description["layer"]), int(description["width"]), description["dtype"]
        )
        format: FeatureFormat = description["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{folder}/features.json: damaged ({error!r})") from None
    paths = sorted(folder.glob(f"features-*.{format}"))
    return description, (stored.load(kind) for path in paths for stored in read_feature_shard(path, kind))


class _Features(ShardWriter[StoredFeatures]):
    """Shards of features, which wait in a nameless file until their shard is written: memory holds one window."""

    stem = "features"
    mismatches = {  # noqa: RUF012
        "layer": "the features of another layer",
        "encoder": "the features of another encoder",
        "dtype": "features of another dtype",
        "format": "shards of another format",
    }

    def __init__(self, tokenizer: Tokenizer, kind: FeatureKind, format: FeatureFormat) -> None:
        self.tokenizer = tokenizer
        self.kind = kind
        self.format = format
        self._waiting: IO[bytes] | None = None

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
            "format": self.format,
        }

    def path(self, folder: Path, index: int) -> Path:
        return feature_shard_path(folder, index, self.format)

    def read(self, path: Path) -> dict[str, StoredFeatures]:
        try:
            return {stored.key: stored for stored in read_feature_shard(path, self.kind)}
        except ShardError as error:
            raise CorpusError(f"{error}; delete this shard to encode it again") from None

    @contextmanager
    def scratch(self, folder: Path) -> Iterator[None]:
        # The system frees a nameless file however this process ends; it lies where a shard has room anyway.
        with tempfile.TemporaryFile(dir=folder) as file:
            self._waiting = file
            yield
        self._waiting = None

    def encode(self, batch: Mapping[Utterance, Recording]) -> list[tuple[StoredFeatures, int]]:
        return [self._encode(utterance, recording) for utterance, recording in batch.items()]

    def _encode(self, utterance: Utterance, recording: Recording) -> tuple[StoredFeatures, int]:
        file = self._waiting
        assert file is not None
        start = file.seek(0, 2)
        frames = samples = 0
        for batch in self.tokenizer.iter_features([recording], [self.kind.layer], batch_seconds=0.0):
            (features,), (samples,) = batch.features, batch.samples
            file.write(to_bytes(self._rounded(features, utterance)))
            frames += len(features)

        def blocks() -> Iterator[bytes]:
            end = start + frames * self.kind.row_bytes
            for at in range(start, end, _BLOCK):
                file.seek(at)
                yield file.read(min(_BLOCK, end - at))

        stored = StoredFeatures(
            utterance.key, str(utterance.path), frames, blocks, num_samples=samples, speaker=utterance.speaker
        )
        return stored, samples

    def _rounded(self, features: Tensor, utterance: Utterance) -> Tensor:
        rounded = features.to(DTYPES[self.kind.dtype])
        if not bool(torch.isfinite(rounded).all()):
            raise CorpusError(
                f"{utterance.path}: layer {self.kind.layer} has features that are not finite in {self.kind.dtype}; "
                "bfloat16 and float32 reach further than float16"
            )
        return rounded

    def write(self, path: Path, records: Sequence[StoredFeatures]) -> None:
        write_feature_shard(path, records, self.kind, self.format)
