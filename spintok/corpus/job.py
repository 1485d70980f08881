"""The books of a run over utterances: shards that are resumable, audited and never mixed, whatever they hold.

Shard ``i`` holds the utterances ``[i * shard_size, (i + 1) * shard_size)`` of the list, in its order, so the bytes
written depend on the list and the tokenizer only: not on batches, workers, ranks, or earlier runs that were killed.
What a shard on disk lacks (a file that failed) is tried again at the next run.
"""

import json
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from spintok._files import digest, json_line, remove_orphans, write_text
from spintok.data.audio import AudioError, Recording
from spintok.data.manifest import Utterance
from spintok.frames import SAMPLE_RATE
from spintok.tokenizer import Tokenizer

__all__ = [
    "CorpusError",
    "Failure",
    "JobOptions",
    "JobProgress",
    "JobSummary",
    "ShardWriter",
    "read_description",
    "run_job",
]

R = TypeVar("R")

_MARKERS = {"tokens": "tokenizer.json", "features": "features.json"}
"""The file that says what a folder's shards hold, by what their names begin with."""


class CorpusError(ValueError):
    """A folder of shards that does not fit the run; the message says how to go on."""


@dataclass(frozen=True)
class JobOptions:
    """How the work is cut and shared.

    Attributes:
        shard_size: utterances a shard.
        workers: threads that read audio.
        rank, ranks: this process takes every shard whose number is ``rank`` modulo ``ranks``.
        overwrite: begin anew, deleting an earlier run's shards.
    """

    shard_size: int = 1000
    workers: int = 2
    rank: int = 0
    ranks: int = 1
    overwrite: bool = False

    def __post_init__(self) -> None:
        if min(self.shard_size, self.workers, self.ranks) < 1:
            raise ValueError("shard_size, workers and ranks must be at least 1")
        if not 0 <= self.rank < self.ranks:
            raise ValueError(f"rank must lie in [0, {self.ranks}), got {self.rank}")
        if self.overwrite and self.ranks > 1:
            raise ValueError("ranks cannot overwrite, or one would delete another's shards; delete the folder first")

    @property
    def part(self) -> str:
        """What a rank's own files have in their names."""
        return "" if self.ranks == 1 else f"-{self.rank:05d}-of-{self.ranks:05d}"


@dataclass(frozen=True)
class Failure:
    """One utterance that could not be encoded, and why."""

    key: str
    file_name: str
    error: str


@dataclass
class JobSummary:
    """What a run did. Utterances in = out + failed."""

    total: int = 0
    encoded: int = 0
    resumed: int = 0
    failures: list[Failure] = field(default_factory=list)
    audio_seconds: float = 0.0
    wall_seconds: float = 0.0

    @property
    def audit(self) -> str:
        """The books, which ``run`` has checked."""
        out = self.encoded + self.resumed
        return f"{self.total} files in = {out} files out + {len(self.failures)} failed"


JobProgress = Callable[[int, float], None]
"""Called with the utterances done and the seconds of audio they hold, since the last call."""


class ShardWriter(ABC, Generic[R]):
    """What shards of records ``R`` hold and how it is made: all in which tokens and features differ.

    Attributes:
        stem: what the shards' names begin with.
        mismatches: fields of ``describe`` that may not change, and what a folder holds where one differs.
        portion_seconds: audio to hand ``encode`` at once; 0 for a recording at a time.
    """

    stem: ClassVar[str]
    mismatches: ClassVar[Mapping[str, str]]
    portion_seconds: float = 0.0

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What all shards of a folder share."""

    @abstractmethod
    def path(self, folder: Path, index: int) -> Path:
        """Where shard ``index`` lies."""

    @abstractmethod
    def read(self, path: Path) -> dict[str, R]:
        """What an earlier run left in a shard, by ``name``. Raises ``CorpusError`` when it is damaged."""

    @abstractmethod
    def encode(self, batch: Mapping[Utterance, Recording]) -> list[tuple[R, int]]:
        """The record of each recording, and its samples at 16 kHz. Raises ``AudioError``."""

    @abstractmethod
    def write(self, path: Path, records: Sequence[R]) -> None:
        """Write a shard so that it appears whole or not at all."""

    def name(self, utterance: Utterance) -> str:
        """What names an utterance in a shard."""
        return utterance.key

    def scratch(self, folder: Path) -> AbstractContextManager[None]:
        """Entered around the encoding and writing of each shard."""
        return nullcontext()

    def finished(self, records: Sequence[R]) -> None:
        """Told the records of each shard once it is written or found whole."""


def run_job(
    writer: ShardWriter[R],
    tokenizer: Tokenizer,
    utterances: Sequence[Utterance],
    output: Path,
    options: JobOptions,
    summary: JobSummary,
    progress: JobProgress,
) -> None:
    """Bring this rank's shards in ``output`` up to what can be encoded, and the books into the summary.

    Writes the shards, the marker, and ``failed.jsonl`` when files failed. Raises ``CorpusError`` when the folder
    holds something else than this run would write.
    """
    started = time.monotonic()
    _prepare(output, writer, _description(writer, utterances, options), options)
    with ThreadPoolExecutor(options.workers) as pool:
        for index, first in enumerate(range(0, len(utterances), options.shard_size)):
            if index % options.ranks == options.rank:
                shard = utterances[first : first + options.shard_size]
                ahead = _Ahead(tokenizer, pool, 4 * options.workers)
                _encode_shard(writer, ahead, shard, writer.path(output, index), summary, progress)
    if summary.encoded + summary.resumed + len(summary.failures) != summary.total:
        raise RuntimeError(f"the books do not balance: {summary.audit}")
    _write_failures(output / f"failed{options.part}.jsonl", summary.failures)
    summary.wall_seconds = time.monotonic() - started


def read_description(folder: Path, stem: str) -> dict[str, Any]:
    """The marker of a folder of tokens or features. Raises ``CorpusError``."""
    marker = _MARKERS[stem]
    try:
        description = json.loads((folder / marker).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CorpusError(f"{folder}: no {marker}, so this is not a folder of {stem}") from None
    except ValueError as error:
        raise CorpusError(f"{folder}/{marker}: damaged ({error!r})") from None
    if not isinstance(description, dict):
        raise CorpusError(f"{folder}/{marker}: damaged (not a JSON object)")
    return description


def _description(writer: ShardWriter[R], utterances: Sequence[Utterance], options: JobOptions) -> dict[str, Any]:
    """What all shards of a folder share; runs that differ in any of it must not mix."""
    return {
        **writer.describe(),
        "shard_size": options.shard_size,
        "utterances": len(utterances),
        "utterance_list": digest((u.key, str(u.path)) for u in utterances),
    }


def _prepare(output: Path, writer: ShardWriter[R], description: dict[str, Any], options: JobOptions) -> None:
    """Make the folder this run's, or refuse it."""
    for stem, name in _MARKERS.items():
        if stem != writer.stem and ((output / name).exists() or any(output.glob(f"{stem}-*"))):
            raise CorpusError(f"{output}: holds {stem}, which {writer.stem} cannot join; name another output folder")
    output.mkdir(parents=True, exist_ok=True)
    marker = output / _MARKERS[writer.stem]
    remove_orphans(output)
    if marker.exists() and not options.overwrite:
        found = read_description(output, writer.stem)
        mismatches = {
            **writer.mismatches,
            "shard_size": "shards of another size",
            "utterance_list": f"the {writer.stem} of another list of files",
        }
        for name, what in mismatches.items():
            if found.get(name) != description[name]:
                raise CorpusError(f"{output}: holds {what}; name another output folder, or add --overwrite")
        return
    patterns = (f"{writer.stem}-*", "failed*.jsonl", "stats*.json")
    old = [path for pattern in patterns for path in output.glob(pattern)]
    if old and not marker.exists():
        raise CorpusError(f"{output}: {old[0].name} lies here without a {marker.name}; name another output folder")
    for path in old:
        path.unlink()
    write_text(marker, json.dumps(description, indent=2) + "\n")


def _encode_shard(
    writer: ShardWriter[R],
    ahead: "_Ahead",
    utterances: Sequence[Utterance],
    path: Path,
    summary: JobSummary,
    progress: JobProgress,
) -> None:
    """Bring one shard up to what can be encoded."""
    keys = {writer.name(utterance): utterance.key for utterance in utterances}
    existing = writer.read(path) if path.exists() else {}
    records = {keys[name]: record for name, record in existing.items() if name in keys}
    summary.total += len(utterances)
    summary.resumed += len(records)
    progress(len(records), 0.0)
    todo = [utterance for utterance in utterances if utterance.key not in records]

    def fail(utterance: Utterance, error: AudioError) -> None:
        summary.failures.append(Failure(utterance.key, str(utterance.path), str(error)))
        progress(1, 0.0)

    if todo or not path.exists():
        with writer.scratch(path.parent):
            for portion in ahead.portions(todo, writer.portion_seconds, fail):
                for utterance, record, samples in _encoded(writer, portion, fail):
                    records[utterance.key] = record
                    seconds = samples / SAMPLE_RATE
                    summary.encoded += 1
                    summary.audio_seconds += seconds
                    progress(1, seconds)
            writer.write(path, _ordered(records, utterances))
    writer.finished(_ordered(records, utterances))


def _ordered(records: Mapping[str, R], utterances: Sequence[Utterance]) -> list[R]:
    return [records[utterance.key] for utterance in utterances if utterance.key in records]


Fail = Callable[[Utterance, AudioError], None]


def _encoded(
    writer: ShardWriter[R], portion: Mapping[Utterance, Recording], fail: Fail
) -> Iterator[tuple[Utterance, R, int]]:
    """The records of a portion; a long file shows only while it is encoded that its end is damaged."""
    try:
        found = writer.encode(portion)
    except AudioError as error:
        if len(portion) > 1:
            for utterance, recording in portion.items():
                yield from _encoded(writer, {utterance: recording}, fail)
        else:
            fail(next(iter(portion)), error)
        return
    for utterance, (record, samples) in zip(portion, found, strict=True):
        yield utterance, record, samples


@dataclass(frozen=True)
class _Ahead:
    """Reads audio ahead in threads, at most ``depth`` files."""

    tokenizer: Tokenizer
    pool: ThreadPoolExecutor
    depth: int

    def portions(
        self, utterances: Sequence[Utterance], seconds: float, fail: Fail
    ) -> Iterator[dict[Utterance, Recording]]:
        """Recordings in portions of about so many seconds, enough to sort by length; those not readable fail."""
        ahead: deque[tuple[Utterance, Future[Recording]]] = deque()
        portion: dict[Utterance, Recording] = {}
        waiting = iter(utterances)
        held = 0.0
        while True:
            while len(ahead) < self.depth and (utterance := next(waiting, None)) is not None:
                ahead.append((utterance, self.pool.submit(self.tokenizer.record, utterance.path)))
            if not ahead:
                break
            utterance, future = ahead.popleft()
            try:
                recording = future.result()
            except AudioError as error:
                fail(utterance, error)
                continue
            portion[utterance] = recording
            held += len(recording.waveform) / SAMPLE_RATE if recording.waveform is not None else 0.0
            if held >= seconds:
                yield portion
                portion, held = {}, 0.0
        if portion:
            yield portion


def _write_failures(path: Path, failures: Sequence[Failure]) -> None:
    if not failures:
        path.unlink(missing_ok=True)
        return
    write_text(path, "".join(json_line(asdict(failure)) for failure in failures))
