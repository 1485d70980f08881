"""A list of utterances to a folder of token shards: resumable, audited, never wrong.

Shard ``i`` holds the utterances ``[i * shard_size, (i + 1) * shard_size)`` of the list, in its order, so the bytes
written depend on the list and the tokenizer only: not on batches, workers, ranks, or earlier runs that were killed.
What a shard on disk lacks (a file that failed) is tried again at the next run.
"""

import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spintok.atomic import atomic
from spintok.audio import AudioError, Recording
from spintok.frames import SAMPLE_RATE
from spintok.manifest import Utterance
from spintok.shards import Format, Record, ShardError, check_format, read_shard, shard_path, write_shard
from spintok.stats import Statistics
from spintok.tokenizer import Tokenizer

__all__ = ["CorpusError", "Failure", "Options", "Summary", "encode_corpus", "read_corpus"]

LAYOUT = 1
"""The version of the token folder's layout."""


class CorpusError(ValueError):
    """A token folder that does not fit the run; the message says how to go on."""


@dataclass(frozen=True)
class Options:
    """What the shards hold and how the work is shared.

    Attributes:
        codebooks: the codebooks to write, the first one's codes in the fields without a prefix.
        format: of the shards.
        dedup: runs with durations, or a code a frame.
        shard_size: utterances a shard.
        batch_seconds: audio in one padded batch on a GPU.
        workers: threads that read audio.
        rank, ranks: this process takes every shard whose number is ``rank`` modulo ``ranks``.
        overwrite: begin anew, deleting an earlier run's shards.
    """

    codebooks: tuple[str, ...] = ("primary",)
    format: Format = "jsonl"
    dedup: bool = True
    shard_size: int = 1000
    batch_seconds: float = 200.0
    workers: int = 2
    rank: int = 0
    ranks: int = 1
    overwrite: bool = False

    def __post_init__(self) -> None:
        if min(self.shard_size, self.workers, self.ranks) < 1 or self.batch_seconds <= 0:
            raise ValueError("shard_size, workers and ranks must be at least 1, and batch_seconds above 0")
        if not 0 <= self.rank < self.ranks:
            raise ValueError(f"rank must lie in [0, {self.ranks}), got {self.rank}")
        if self.format == "km" and self.dedup:
            raise ValueError("a .km file holds a code a frame: durations would be lost; add --no-dedup")
        if self.format == "km" and len(self.codebooks) > 1:
            raise ValueError("a .km file holds one codebook; name it with --codebook")
        if self.overwrite and self.ranks > 1:
            raise ValueError("ranks cannot overwrite, or one would delete another's shards; delete the folder first")


@dataclass(frozen=True)
class Failure:
    """One utterance that could not be encoded, and why."""

    key: str
    file_name: str
    error: str


@dataclass
class Summary:
    """What a run did. Utterances in = out + failed."""

    statistics: Statistics
    total: int = 0
    encoded: int = 0
    resumed: int = 0
    failures: list[Failure] = field(default_factory=list)
    audio_seconds: float = 0.0
    wall_seconds: float = 0.0

    @property
    def audit(self) -> str:
        """The books, which ``encode_corpus`` has checked."""
        out = self.encoded + self.resumed
        return f"{self.total} files in = {out} files out + {len(self.failures)} failed"


Progress = Callable[[int, float], None]
"""Called with the utterances done and the seconds of audio they hold, since the last call."""


def encode_corpus(
    tokenizer: Tokenizer,
    utterances: Sequence[Utterance],
    output: Path,
    options: Options,
    progress: Progress = lambda utterances, seconds: None,
) -> Summary:
    """Encode utterances into the folder ``output``; run again after a crash, it goes on where it was.

    Writes ``tokens-00000.jsonl`` and so on, ``tokenizer.json``, ``stats.json``, and ``failed.jsonl`` when files
    failed. Raises ``CorpusError`` when the folder holds the tokens of another tokenizer, list or format.
    """
    started = time.monotonic()
    check_format(options.format)
    sizes = {name: tokenizer.size_of(name) for name in options.codebooks}
    if len({_stored_name(utterance, options.format) for utterance in utterances}) < len(utterances):
        raise CorpusError("a file is listed twice: a .km folder tells utterances apart by their files")
    _prepare(output, _description(tokenizer, utterances, options, sizes), options.overwrite, options.ranks)
    summary = Summary(statistics=Statistics.empty(sizes[options.codebooks[0]]))
    with ThreadPoolExecutor(options.workers) as pool:
        for index, first in enumerate(range(0, len(utterances), options.shard_size)):
            if index % options.ranks == options.rank:
                shard = utterances[first : first + options.shard_size]
                _encode_shard(
                    tokenizer, shard, shard_path(output, index, options.format), options, sizes, pool, summary, progress
                )
    if summary.encoded + summary.resumed + len(summary.failures) != summary.total:
        raise RuntimeError(f"the books do not balance: {summary.audit}")
    part = "" if options.ranks == 1 else f"-{options.rank:05d}-of-{options.ranks:05d}"
    _write_failures(output / f"failed{part}.jsonl", summary.failures)
    with atomic(output / f"stats{part}.json") as temporary:
        temporary.write_text(summary.statistics.to_json(), encoding="utf-8")
    summary.wall_seconds = time.monotonic() - started
    return summary


def read_corpus(folder: Path) -> tuple[dict[str, Any], Iterator[Record]]:
    """A token folder's description (its ``tokenizer.json``) and its records, shard by shard, in order."""
    try:
        description = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        sizes = dict(description["codebooks"])
        format: Format = description["format"]
    except FileNotFoundError:
        raise CorpusError(f"{folder}: no tokenizer.json, so this is not a folder of tokens") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{folder}/tokenizer.json: damaged ({error!r})") from None
    paths = sorted(folder.glob(f"tokens-*.{format}"))
    return description, (record for path in paths for record in read_shard(path, sizes))


def _description(
    tokenizer: Tokenizer, utterances: Sequence[Utterance], options: Options, sizes: dict[str, int]
) -> dict[str, Any]:
    """What all shards of a folder share; runs that differ in any of it must not mix."""
    listed = "\n".join(f"{u.key}\t{u.path}" for u in utterances)
    return {
        "spintok_tokens": LAYOUT,
        "tokenizer": tokenizer.name,
        "fingerprint": tokenizer.fingerprint,
        "codebooks": sizes,
        "sample_rate": tokenizer.sample_rate,
        "frame_rate": tokenizer.frame_rate,
        "format": options.format,
        "dedup": options.dedup,
        "shard_size": options.shard_size,
        "utterances": len(utterances),
        "utterance_list": hashlib.sha256(listed.encode()).hexdigest(),
    }


_MISMATCH = {
    "fingerprint": "the tokens of another tokenizer",
    "codebooks": "tokens of other codebooks",
    "format": "shards of another format",
    "dedup": "shards with another setting of --dedup",
    "shard_size": "shards of another size",
    "utterance_list": "the tokens of another list of files",
}


def _prepare(output: Path, description: dict[str, Any], overwrite: bool, ranks: int) -> None:
    """Make the folder this run's, or refuse it."""
    output.mkdir(parents=True, exist_ok=True)
    marker = output / "tokenizer.json"
    if ranks == 1:
        # What a killed run was writing. With more ranks, another one may be writing it now.
        for path in output.glob(".*.tmp"):
            path.unlink()
    if marker.exists() and not overwrite:
        found, _ = read_corpus(output)
        for name, what in _MISMATCH.items():
            if found.get(name) != description[name]:
                raise CorpusError(f"{output}: holds {what}; name another output folder, or add --overwrite")
        return
    old = [path for pattern in ("tokens-*", "failed*.jsonl", "stats*.json") for path in output.glob(pattern)]
    if old and not marker.exists():
        raise CorpusError(f"{output}: {old[0].name} lies here without a tokenizer.json; name another output folder")
    for path in old:
        path.unlink()
    with atomic(marker) as temporary:
        temporary.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def _encode_shard(
    tokenizer: Tokenizer,
    utterances: Sequence[Utterance],
    path: Path,
    options: Options,
    sizes: dict[str, int],
    pool: ThreadPoolExecutor,
    summary: Summary,
    progress: Progress,
) -> None:
    """Bring one shard up to what can be encoded, and its figures into the summary."""
    keys = {_stored_name(utterance, options.format): utterance.key for utterance in utterances}
    records = {keys[name]: record for name, record in _existing(path, sizes).items() if name in keys}
    summary.total += len(utterances)
    summary.resumed += len(records)
    progress(len(records), 0.0)
    todo = [utterance for utterance in utterances if utterance.key not in records]
    for batch in _batches(tokenizer, todo, options, pool, summary, progress):
        encoded = tokenizer.encode_recordings(list(batch.values()), options.codebooks, options.batch_seconds)
        seconds = sum((next(iter(tokens.values())).num_samples or 0) / SAMPLE_RATE for tokens in encoded)
        for utterance, tokens in zip(batch, encoded, strict=True):
            name = _stored_name(utterance, options.format)
            file_name = name if options.format == "km" else str(utterance.path)
            records[utterance.key] = Record(utterance.key, file_name, tokens, utterance.speaker)
        summary.encoded += len(batch)
        summary.audio_seconds += seconds
        progress(len(batch), seconds)
    ordered = [records[utterance.key] for utterance in utterances if utterance.key in records]
    if todo or not path.exists():
        write_shard(path, ordered, options.format, dedup=options.dedup)
    first = options.codebooks[0]
    spoken = ((record.tokens[first], record.speaker) for record in ordered)
    summary.statistics += Statistics.collect(spoken, summary.statistics.codebook_size)


def _stored_name(utterance: Utterance, format: Format) -> str:
    """What names an utterance in a shard: its key, or in fairseq's files, which have none, its path."""
    return os.path.abspath(utterance.path) if format == "km" else utterance.key  # noqa: PTH100


def _existing(path: Path, sizes: dict[str, int]) -> dict[str, Record]:
    """What an earlier run left of a shard."""
    if not path.exists():
        return {}
    try:
        records = read_shard(path, sizes)
    except ShardError as error:
        if path.suffix == ".km":
            # A crash between the two files of the pair: the shard was not finished.
            return {}
        raise CorpusError(f"{error}; delete this shard to encode it again") from None
    return {record.key: record for record in records}


def _batches(
    tokenizer: Tokenizer,
    utterances: Sequence[Utterance],
    options: Options,
    pool: ThreadPoolExecutor,
    summary: Summary,
    progress: Progress,
) -> Iterator[dict[Utterance, Recording]]:
    """Read audio ahead in threads and hand it on in portions that hold enough to sort by length.

    A CPU encodes one recording at a time, so there a portion is one recording.
    """
    enough = 0.0 if tokenizer.device.type == "cpu" else 4 * options.batch_seconds
    ahead: deque[tuple[Utterance, Future[Recording]]] = deque()
    portion: dict[Utterance, Recording] = {}
    waiting = iter(utterances)
    seconds = 0.0
    while True:
        while len(ahead) < 4 * options.workers and (utterance := next(waiting, None)) is not None:
            ahead.append((utterance, pool.submit(tokenizer.record, utterance.path)))
        if not ahead:
            break
        utterance, future = ahead.popleft()
        try:
            recording = future.result()
        except AudioError as error:
            summary.failures.append(Failure(utterance.key, str(utterance.path), str(error)))
            progress(1, 0.0)
            continue
        portion[utterance] = recording
        seconds += len(recording.waveform) / SAMPLE_RATE if recording.waveform is not None else 0.0
        if seconds >= enough:
            yield portion
            portion, seconds = {}, 0.0
    if portion:
        yield portion


def _write_failures(path: Path, failures: Sequence[Failure]) -> None:
    if not failures:
        path.unlink(missing_ok=True)
        return
    with atomic(path) as temporary:
        lines = (json.dumps(asdict(failure), ensure_ascii=False) + "\n" for failure in failures)
        temporary.write_text("".join(lines), encoding="utf-8")
