"""A list of utterances to a folder of token shards, and back; ``spintok.corpus.job`` makes it resumable."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from spintok._files import write_text
from spintok.corpus.cluster.run import Work, run_shared
from spintok.corpus.cluster.store import open_store
from spintok.corpus.cluster.worker import Worker
from spintok.corpus.dataset_card import dataset_card
from spintok.corpus.errors import CorpusError
from spintok.corpus.folder import read_description, shard_paths
from spintok.corpus.job import run_job
from spintok.corpus.job_options import JobOptions
from spintok.corpus.job_summary import Failure, JobSummary
from spintok.corpus.partial import Partial
from spintok.corpus.shard_record import check_shard
from spintok.corpus.shard_writer import ShardWriter
from spintok.corpus.token_formats import (
    Format,
    Record,
    TokenLayout,
    array_names,
    check_format,
    check_names,
    read_shard,
    record_of_row,
    row_of,
    shard_files,
    shard_path,
    write_shard,
)
from spintok.data.audio import Recording
from spintok.data.locations.addresses import absolute
from spintok.data.locations.base import is_url
from spintok.data.manifest import Utterance
from spintok.frames import FRAME_RATE, RECEPTIVE_FIELD, SAMPLE_RATE, FrameGrid
from spintok.progress import Progress, no_progress
from spintok.stats import TokenCounts, from_json, to_json
from spintok.tokenizer import Tokenizer
from spintok.tokens import Tokens

__all__ = [
    "CorpusError",
    "Failure",
    "Options",
    "TokenSummary",
    "encode_corpus",
    "read_corpus",
    "statistics",
    "token_writer",
]

_CPU_SECONDS = 120.0
"""Audio for each thread of a CPU that is encoded together: when the last of it are encoded, threads are idle."""

LAYOUT = 1
"""The version of the token folder's layout."""


@dataclass(frozen=True, kw_only=True)
class Options(JobOptions):
    """What the shards hold and how the work is divided.

    Attributes:
        codebooks: the codebooks to write; the fields of the one named "primary" have no prefix.
        format: the format of the shards.
        dedup: store runs with durations, or a code per frame.
        batch_seconds: audio in one padded batch on a GPU.
    """

    codebooks: tuple[str, ...] = ("primary",)
    format: Format = "jsonl"
    dedup: bool = True
    batch_seconds: float = 200.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_seconds <= 0:
            raise ValueError(f"batch_seconds must be above 0, got {self.batch_seconds}")
        if self.format == "km" and self.dedup:
            raise ValueError("a .km file holds a code per frame: durations would be lost; add --no-dedup")
        if self.format == "km" and len(self.codebooks) > 1:
            raise ValueError("a .km file holds one codebook; name it with --codebook")


@dataclass
class TokenSummary(JobSummary):
    """What a job did, and the counts of its tokens from the first codebook."""

    counts: TokenCounts = field(kw_only=True)


def encode_corpus(
    tokenizer: Tokenizer,
    utterances: Sequence[Utterance],
    output: Path | str,
    options: Options,
    progress: Progress = no_progress,
    *,
    work: Work | None = None,
) -> TokenSummary:
    """Encode utterances to tokens in the folder or address ``output``; after a crash, the same call continues.

    Writes ``tokens-00000.jsonl`` and so on, ``tokenizer.json``, ``stats.json``, and ``failed.jsonl`` when files
    failed. With ``options.shared``, ``work`` is what this process does in place of taking shards itself.

    Raises:
        CorpusError: the folder holds the tokens of another tokenizer, list or format, a shard is damaged, or another
            process is writing to it.
        MissingPackageError: the format, or the address, needs a package that is not installed.
    """
    check_format(options.format)
    first = options.codebooks[0]
    size = tokenizer.size_of(first)
    summary = TokenSummary(counts=TokenCounts.empty(size, tokenizer.frame_rate))

    def count(records: Mapping[Utterance, Record]) -> None:
        # A .km file does not hold the speakers.
        spoken = ((record.tokens[first], record.speaker or utterance.speaker) for utterance, record in records.items())
        summary.counts += TokenCounts.collect(spoken, size, tokenizer.frame_rate)

    writer = token_writer(tokenizer, options, count)
    if options.shared or is_url(output):
        store = open_store(output)
        run_shared(writer, tokenizer, utterances, store, options, summary, progress, statistics, work)
        if (stats := store.read("stats.json")) is not None:
            summary.counts = from_json(stats.decode("utf-8"), f"{output}/stats.json")
        return summary
    run_job(writer, tokenizer, utterances, Path(output), options, summary, progress)
    write_text(Path(output) / f"stats{options.part}.json", to_json(summary.counts))
    return summary


def token_writer(
    tokenizer: Tokenizer,
    options: Options,
    shard_done: Callable[[Mapping[Utterance, Record]], None] = lambda records: None,
) -> ShardWriter[Record]:
    """What writes the shards of a job; ``shard_done`` is called with the records of each."""
    sizes = {name: tokenizer.size_of(name) for name in options.codebooks}
    return _TokenWriter(tokenizer, options, sizes, shard_done)


def statistics(worker: Worker[Record]) -> dict[str, bytes]:
    """The ``stats.json`` of a worker's folder, whose shards are all finished."""
    description = worker.writer.describe()
    first, size = next(iter(description["codebooks"].items()))
    counts = TokenCounts.empty(size, worker.tokenizer.frame_rate)
    with TemporaryDirectory(prefix="spintok-") as scratch:
        for part, records in worker.records(Path(scratch)):
            found = ((u, records[name]) for u in part if (name := worker.writer.name(u)) in records)
            spoken = ((record.tokens[first], record.speaker or utterance.speaker) for utterance, record in found)
            counts += TokenCounts.collect(spoken, size, worker.tokenizer.frame_rate)
    return {"stats.json": to_json(counts).encode()}


def read_corpus(folder: Path) -> tuple[dict[str, Any], Iterator[Record]]:
    """The description of a token folder (its ``tokenizer.json``) and its records in order, shard by shard.

    Every shard is compared with its recorded SHA-256 before it is read.

    Raises:
        CorpusError: not a token folder, or shards are missing.
        ShardError: a shard is damaged; raised while iterating.
    """
    description = read_description(folder, "tokens")
    try:
        sizes = {str(name): int(size) for name, size in description["codebooks"].items()}
        grid = grid_of(description)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CorpusError(f"{folder}/tokenizer.json: damaged ({error!r})") from None
    if not sizes:
        raise CorpusError(f"{folder}/tokenizer.json: damaged (no codebooks)")
    return description, _records(shard_paths(folder, "tokens", description), sizes, grid)


def how_computed(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a description says of a tokenizer that hears no whole recordings, or not in float32."""
    return {
        **({} if tokenizer.latency is None else {"latency": tokenizer.latency}),
        **({} if tokenizer.precision == "float32" else {"precision": tokenizer.precision}),
    }


def grid_of(description: Mapping[str, Any]) -> FrameGrid:
    """Where the frames of a token folder or of an export lie.

    What is not stated is HuBERT's, as in early folders. Raises ``ValueError`` for frames that no encoder has.
    """
    rate = description.get("frame_rate", FRAME_RATE)
    if not isinstance(rate, int) or rate < 1 or SAMPLE_RATE % rate:
        raise ValueError(f"frame_rate is {rate!r:.80}")
    return FrameGrid(SAMPLE_RATE // rate, description.get("receptive_field", RECEPTIVE_FIELD))


def _records(shards: Sequence[Path], sizes: Mapping[str, int], grid: FrameGrid) -> Iterator[Record]:
    for shard in shards:
        check_shard(shard, shard_files(shard))
        yield from read_shard(shard, sizes, grid)


class _TokenWriter(ShardWriter[Record]):
    """Shards of tokens."""

    stem = "tokens"
    comparable = True
    mismatches = {  # noqa: RUF012
        "fingerprint": "the tokens of another tokenizer, latency or precision",
        "codebooks": "tokens of other codebooks",
        "format": "shards of another format",
        "dedup": "shards with another setting of --dedup",
    }

    def __init__(
        self,
        tokenizer: Tokenizer,
        options: Options,
        sizes: Mapping[str, int],
        shard_done: Callable[[Mapping[Utterance, Record]], None],
    ) -> None:
        self.tokenizer = tokenizer
        self.options = options
        self.layout = TokenLayout(sizes, options.dedup, tokenizer.grid)
        self._shard_done = shard_done
        self._description = {
            "spintok_tokens": LAYOUT,
            "tokenizer": tokenizer.name,
            "fingerprint": tokenizer.fingerprint,
            "codebooks": sizes,
            "sample_rate": tokenizer.sample_rate,
            "frame_rate": tokenizer.frame_rate,
            "receptive_field": tokenizer.grid.reach,
            "format": options.format,
            "dedup": options.dedup,
            **how_computed(tokenizer),
        }
        # A GPU sorts the audio of a few batches by length; the threads of a CPU share a second or two of work.
        threads = torch.get_num_threads()
        on_cpu = _CPU_SECONDS * threads if threads > 1 else 0.0
        self.portion_seconds = on_cpu if tokenizer.device.type == "cpu" else 4 * options.batch_seconds

    def describe(self) -> dict[str, Any]:
        return self._description

    def dataset_card(self, mark: str) -> str | None:
        if self.options.format == "km":
            return None
        return dataset_card(mark, self.options.format, self.tokenizer.name, array_names(self.layout))

    def path(self, folder: Path, index: int) -> Path:
        return shard_path(folder, index, self.options.format)

    def files(self, shard: Path) -> list[Path]:
        return shard_files(shard)

    def name(self, utterance: Utterance) -> str:
        """The key; in fairseq's files, which have no keys, the path."""
        return absolute(str(utterance.path)) if self.options.format == "km" else utterance.key

    def check(self, utterance: Utterance) -> None:
        names = (utterance.key, str(utterance.path), utterance.speaker or "")
        # A .km file holds neither keys nor speakers.
        check_names((self.name(utterance),) if self.options.format == "km" else names, self.options.format)

    def read(self, shard: Path) -> dict[str, Record]:
        return {record.key: record for record in read_shard(shard, self.layout.codebooks, self.layout.grid)}

    def encode(
        self, batch: Mapping[Utterance, Recording], progress: Callable[[Utterance, int], None]
    ) -> Iterator[tuple[Utterance, Record, int]]:
        options = self.options
        utterances, recordings = list(batch), list(batch.values())
        encoded = self.tokenizer.iter_recordings(
            recordings,
            options.codebooks,
            options.batch_seconds,
            lambda index, samples: progress(utterances[index], samples),
        )
        for index, tokens in encoded:
            yield (
                utterances[index],
                self._record(utterances[index], tokens),
                next(iter(tokens.values())).num_samples or 0,
            )

    def encode_long(
        self, utterance: Utterance, recording: Recording, partial: Partial, progress: Callable[[Utterance, int], None]
    ) -> tuple[Record, int]:
        last = partial.saved[0] if partial.saved else None
        samples = 0 if last is None else last.samples
        parts = [] if last is None else [last.arrays]
        state = None if last is None else last.state
        progress(utterance, samples)
        for part in self.tokenizer.iter_codes(recording, self.options.codebooks, state):
            samples = part.samples
            parts.append(part.codes)
            progress(utterance, samples)
            partial.keep(samples, part.state, arrays=lambda: _joined(parts))
        return self._record(utterance, self.tokenizer.joined(parts, samples)), samples

    def _record(self, utterance: Utterance, tokens: Mapping[str, Tokens]) -> Record:
        file_name = self.name(utterance) if self.options.format == "km" else str(utterance.path)
        return Record(utterance.key, file_name, tokens, utterance.speaker)

    def write(self, shard: Path, records: Sequence[Record]) -> None:
        options = self.options
        write_shard(shard, records, options.format, dedup=options.dedup, codebooks=self.layout.codebooks)

    def to_entry(self, record: Record) -> dict[str, Any]:
        return row_of(record, self.layout)

    def from_entry(self, entry: Mapping[str, Any]) -> Record:
        return record_of_row(entry, self.layout.codebooks, self.layout.grid)

    def equal(self, stored: Record, again: Record) -> bool:
        return all(
            again.tokens[name].num_frames == tokens.num_frames
            and bool((again.tokens[name].codes == tokens.codes).all())
            for name, tokens in stored.tokens.items()
        )

    def shard_done(self, records: Mapping[Utterance, Record]) -> None:
        self._shard_done(records)


def _joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
