"""A list of utterances to a folder of token shards: resumable, audited, never wrong (``spintok.corpus.job``)."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spintok._files import write_text
from spintok.corpus.job import (
    CorpusError,
    Failure,
    JobOptions,
    JobProgress,
    JobSummary,
    ShardWriter,
    read_description,
    run_job,
)
from spintok.corpus.token_formats import Format, Record, ShardError, check_format, read_shard, shard_path, write_shard
from spintok.data.audio import Recording
from spintok.data.manifest import Utterance
from spintok.stats import TokenCounts, to_json
from spintok.tokenizer import Tokenizer

__all__ = ["CorpusError", "Failure", "JobProgress", "Options", "TokenSummary", "encode_corpus", "read_corpus"]

LAYOUT = 1
"""The version of the token folder's layout."""


@dataclass(frozen=True, kw_only=True)
class Options(JobOptions):
    """What the shards hold and how the work is shared.

    Attributes:
        codebooks: the codebooks to write, the first one's codes in the fields without a prefix.
        format: of the shards.
        dedup: runs with durations, or a code a frame.
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
            raise ValueError("a .km file holds a code a frame: durations would be lost; add --no-dedup")
        if self.format == "km" and len(self.codebooks) > 1:
            raise ValueError("a .km file holds one codebook; name it with --codebook")


@dataclass
class TokenSummary(JobSummary):
    """What a run did, and the statistics of its tokens. Utterances in = out + failed."""

    counts: TokenCounts = field(kw_only=True)


def encode_corpus(
    tokenizer: Tokenizer,
    utterances: Sequence[Utterance],
    output: Path,
    options: Options,
    progress: JobProgress = lambda utterances, seconds: None,
) -> TokenSummary:
    """Encode utterances into the folder ``output``; run again after a crash, it goes on where it was.

    Writes ``tokens-00000.jsonl`` and so on, ``tokenizer.json``, ``stats.json``, and ``failed.jsonl`` when files
    failed. Raises ``CorpusError`` when the folder holds the tokens of another tokenizer, list or format.
    """
    check_format(options.format)
    sizes = {name: tokenizer.size_of(name) for name in options.codebooks}
    summary = TokenSummary(counts=TokenCounts.empty(sizes[options.codebooks[0]]))

    def collect(records: Sequence[Record]) -> None:
        spoken = ((record.tokens[options.codebooks[0]], record.speaker) for record in records)
        summary.counts += TokenCounts.collect(spoken, summary.counts.codebook_size)

    contents = _Codes(tokenizer, options, sizes, collect)
    if len({contents.name(utterance) for utterance in utterances}) < len(utterances):
        raise CorpusError("a file is listed twice: a .km folder tells utterances apart by their files")
    run_job(contents, tokenizer, utterances, output, options, summary, progress)
    write_text(output / f"stats{options.part}.json", to_json(summary.counts))
    return summary


def read_corpus(folder: Path) -> tuple[dict[str, Any], Iterator[Record]]:
    """A token folder's description (its ``tokenizer.json``) and its records, shard by shard, in order."""
    description = read_description(folder, "tokens")
    try:
        sizes = dict(description["codebooks"])
        format: Format = description["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{folder}/tokenizer.json: damaged ({error!r})") from None
    paths = sorted(folder.glob(f"tokens-*.{format}"))
    return description, (record for path in paths for record in read_shard(path, sizes))


class _Codes(ShardWriter[Record]):
    """Shards of codes."""

    stem = "tokens"
    mismatches = {  # noqa: RUF012
        "fingerprint": "the tokens of another tokenizer",
        "codebooks": "tokens of other codebooks",
        "format": "shards of another format",
        "dedup": "shards with another setting of --dedup",
    }

    def __init__(
        self,
        tokenizer: Tokenizer,
        options: Options,
        sizes: Mapping[str, int],
        collect: Callable[[Sequence[Record]], None],
    ) -> None:
        self.tokenizer = tokenizer
        self.options = options
        self.sizes = sizes
        self.collect = collect
        # A CPU encodes one recording at a time; a GPU sorts some batches' worth by length.
        self.portion_seconds = 0.0 if tokenizer.device.type == "cpu" else 4 * options.batch_seconds

    def describe(self) -> dict[str, Any]:
        return {
            "spintok_tokens": LAYOUT,
            "tokenizer": self.tokenizer.name,
            "fingerprint": self.tokenizer.fingerprint,
            "codebooks": self.sizes,
            "sample_rate": self.tokenizer.sample_rate,
            "frame_rate": self.tokenizer.frame_rate,
            "format": self.options.format,
            "dedup": self.options.dedup,
        }

    def path(self, folder: Path, index: int) -> Path:
        return shard_path(folder, index, self.options.format)

    def name(self, utterance: Utterance) -> str:
        """The key, or in fairseq's files, which have none, the path."""
        return os.path.abspath(utterance.path) if self.options.format == "km" else utterance.key  # noqa: PTH100

    def read(self, path: Path) -> dict[str, Record]:
        try:
            records = read_shard(path, self.sizes)
        except ShardError as error:
            if path.suffix == ".km":
                # A crash between the two files of the pair: the shard was not finished.
                return {}
            raise CorpusError(f"{error}; delete this shard to encode it again") from None
        return {record.key: record for record in records}

    def encode(self, batch: Mapping[Utterance, Recording]) -> list[tuple[Record, int]]:
        options = self.options
        encoded = self.tokenizer.encode_recordings(list(batch.values()), options.codebooks, options.batch_seconds)
        found = []
        for utterance, tokens in zip(batch, encoded, strict=True):
            file_name = self.name(utterance) if options.format == "km" else str(utterance.path)
            samples = next(iter(tokens.values())).num_samples or 0
            found.append((Record(utterance.key, file_name, tokens, utterance.speaker), samples))
        return found

    def write(self, path: Path, records: Sequence[Record]) -> None:
        write_shard(path, records, self.options.format, dedup=self.options.dedup)

    def finished(self, records: Sequence[Record]) -> None:
        self.collect(records)
