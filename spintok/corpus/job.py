"""Resumable, audited jobs that encode a list of utterances to a folder, one shard at a time.

Shard ``i`` holds the utterances ``[i * shard_size, (i + 1) * shard_size)`` of the list, in its order. So its bytes
depend on the list and the tokenizer only, not on batches, threads, ranks or earlier runs that were killed.

A job that is killed loses the utterances it was encoding: finished ones are in the shard's journal and are replayed by
the next run. Utterances that a shard lacks because their file failed are tried again, and so are those whose file has
another size or modification time than when it was encoded.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from spintok._files import json_line, write_text
from spintok.corpus.folder import CorpusError, lock_folder, prepare_folder, refuse_other_kind
from spintok.corpus.job_meter import JobMeter
from spintok.corpus.job_options import JobOptions
from spintok.corpus.journal import Journal, journal_path
from spintok.corpus.read_ahead import OpenRecording, ReadAhead
from spintok.corpus.shard_record import ShardRecord, Source, checksums, read_record, record_path, source_of
from spintok.corpus.shard_writer import ShardWriter
from spintok.corpus.token_formats import ShardError
from spintok.data.manifest import Utterance
from spintok.featurizer import Featurizer
from spintok.frames import SAMPLE_RATE
from spintok.progress import Progress

__all__ = ["CorpusError", "Failure", "JobOptions", "JobSummary", "run_job"]

R = TypeVar("R")


@dataclass(frozen=True)
class Failure:
    """One utterance that could not be encoded, and why."""

    key: str
    file_name: str
    error: str


@dataclass
class JobSummary:
    """What a job did.

    Attributes:
        total: utterances of this rank; ``encoded + resumed + len(failures)``.
        encoded: by this run.
        resumed: found in shards and journals of earlier runs.
        failures: those that could not be encoded.
        audio_seconds: of what was encoded.
        wall_seconds: of the run.
    """

    total: int = 0
    encoded: int = 0
    resumed: int = 0
    failures: list[Failure] = field(default_factory=list)
    audio_seconds: float = 0.0
    wall_seconds: float = 0.0

    @property
    def audit(self) -> str:
        """Utterances in and out, as a sentence; ``run_job`` has checked that they agree."""
        out = self.encoded + self.resumed
        return f"{self.total} files in = {out} files out + {len(self.failures)} failed"


def run_job(
    writer: ShardWriter[R],
    tokenizer: Featurizer,
    utterances: Sequence[Utterance],
    output: Path,
    options: JobOptions,
    summary: JobSummary,
    progress: Progress,
) -> None:
    """Encode this rank's missing utterances to ``output`` and update ``summary``.

    Writes the shards, the description, and ``failed.jsonl`` when files failed.

    Raises:
        CorpusError: the folder holds something else or damaged shards, another process is writing to it, or the list
            names an utterance twice.
    """
    started = time.monotonic()
    _refuse_duplicates(writer, utterances)
    refuse_other_kind(output, writer.stem)
    output.mkdir(parents=True, exist_ok=True)
    with lock_folder(output, options), _threads(options.workers) as pool:
        prepare_folder(output, writer, utterances, options)
        reader = ReadAhead(tokenizer, pool, 4 * options.workers)
        starts = range(options.rank * options.shard_size, len(utterances), options.ranks * options.shard_size)
        parts = {start // options.shard_size: utterances[start : start + options.shard_size] for start in starts}
        meter = JobMeter(progress, sum(map(len, parts.values())))
        for index, part in parts.items():
            _ShardJob(writer, writer.path(output, index), part, summary, meter).run(reader)
        if summary.encoded + summary.resumed + len(summary.failures) != summary.total:
            raise RuntimeError(f"the audit does not balance: {summary.audit}")
        _write_failures(output / f"failed{options.part}.jsonl", summary.failures)
    summary.wall_seconds = time.monotonic() - started


@contextmanager
def _threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that, if the block is interrupted, finish the files they are reading but start no more."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _refuse_duplicates(writer: ShardWriter[R], utterances: Sequence[Utterance]) -> None:
    for what, names in (
        ("key", Counter(utterance.key for utterance in utterances)),
        ("name", Counter(map(writer.name, utterances))),
    ):
        if len(names) < len(utterances):
            name, count = names.most_common(1)[0]
            raise CorpusError(f"{count} utterances have the {what} {name!r}; each needs its own")


@dataclass
class _ShardJob(Generic[R]):
    """One shard on its way to being complete.

    ``records`` and ``sources`` (by utterance) grow from the shard on disk, the journal, and what is encoded now.
    """

    writer: ShardWriter[R]
    path: Path
    utterances: Sequence[Utterance]
    summary: JobSummary
    meter: JobMeter
    records: dict[Utterance, R] = field(default_factory=dict)
    sources: dict[Utterance, Source] = field(default_factory=dict)

    def run(self, reader: ReadAhead) -> None:
        """Encode what the shard lacks, and write it."""
        self.summary.total += len(self.utterances)
        journaled = journal_path(self.path).exists()
        if self.path.exists() and not journaled:
            self._load(strict=True)
        if journaled or not self.path.exists() or len(self.records) < len(self.utterances):
            with self._open_journal() as journal, self.writer.scratch(self.path):
                if journaled:
                    # The last run was killed, perhaps while it replaced the shard: its journal has what is new.
                    self._load(strict=False)
                    self._replay(journal)
                self._count_resumed()
                self._encode_missing(reader, journal)
                self._write()
                # The scratch file first: without its journal nothing would delete it.
                self.writer.discard_scratch(self.path)
                journal.delete()
        else:
            self._count_resumed()
        self.writer.shard_done(self.records)

    def _open_journal(self) -> Journal:
        described = self.writer.describe()
        identity = {"spintok_journal": 1, **{name: described[name] for name in self.writer.mismatches}}
        try:
            return Journal(journal_path(self.path), identity)
        except BlockingIOError:
            raise CorpusError(f"{self.path}: another process is writing this shard; run one per rank") from None

    def _load(self, *, strict: bool) -> None:
        """Take the records of the shard on disk; a damaged one is an error, or skipped when not ``strict``."""
        try:
            record = read_record(self.path)
            found = checksums(self.writer.files(self.path))
            if record is not None and found != record.sha256:
                raise ShardError(f"{self.path}: damaged: its SHA-256 is not the recorded one")
            stored = self.writer.read(self.path)
        except (ShardError, FileNotFoundError) as error:
            if strict:
                raise CorpusError(f"{error}; delete this shard to encode it again") from None
            return
        if record is None:
            record = ShardRecord(found, {})
            record.write(self.path)
        for utterance in self.utterances:
            name = self.writer.name(utterance)
            if name in stored:
                self._take(utterance, stored[name], record.sources.get(name))

    def _replay(self, journal: Journal) -> None:
        by_name = {self.writer.name(utterance): utterance for utterance in self.utterances}
        for entry in journal.entries:
            try:
                utterance, source = by_name.get(entry["name"]), entry["source"]
                if utterance is not None:
                    record = self.writer.from_entry(entry["record"])
                    self._take(utterance, record, None if source is None else (source[0], source[1]))
            except (ValueError, KeyError, TypeError, IndexError):
                # Its features did not reach the disk before the machine stopped.
                continue

    def _take(self, utterance: Utterance, record: R, source: Source | None) -> None:
        """Take a record of an earlier run, unless its audio file has changed since."""
        now = source_of(utterance.path)
        if None not in (source, now) and source != now:
            self.records.pop(utterance, None)
            return
        self.records[utterance] = record
        if source is not None:
            self.sources[utterance] = source

    def _count_resumed(self) -> None:
        self.summary.resumed += len(self.records)
        self.meter.skip(len(self.records))

    def _encode_missing(self, reader: ReadAhead, journal: Journal) -> None:
        missing = []
        for utterance in self.utterances:
            if utterance not in self.records:
                try:
                    self.writer.check(utterance)
                    missing.append(utterance)
                except ValueError as error:
                    self._fail(utterance, error)
        for portion in reader.portions(missing, self.writer.portion_seconds, self._fail):
            for utterance, record, samples in self._encode(portion):
                source = portion[utterance].source
                name = self.writer.name(utterance)
                journal.append({"name": name, "source": source, "record": self.writer.to_entry(record)})
                self.records[utterance] = record
                if source is not None:
                    self.sources[utterance] = source
                seconds = samples / SAMPLE_RATE
                self.summary.encoded += 1
                self.summary.audio_seconds += seconds
                self.meter.finish(utterance, seconds)

    def _encode(self, portion: Mapping[Utterance, OpenRecording]) -> Iterator[tuple[Utterance, R, int]]:
        """The records of a portion. When encoding fails, each utterance is tried alone, and those that fail listed."""
        try:
            recordings = {utterance: opened.recording for utterance, opened in portion.items()}
            encoded = self.writer.encode(recordings, partial(self.meter.advance, portion))
        except OSError:
            # Readers turn theirs into AudioError, so this is the output: a full disk concerns every utterance.
            raise
        except Exception as error:
            if len(portion) > 1:
                for utterance, opened in portion.items():
                    yield from self._encode({utterance: opened})
            else:
                self._fail(next(iter(portion)), error)
            return
        for utterance, (record, samples) in zip(portion, encoded, strict=True):
            yield utterance, record, samples

    def _fail(self, utterance: Utterance, error: Exception) -> None:
        lines = str(error).strip().splitlines() or [""]
        message = lines[0] if isinstance(error, ValueError) else f"{type(error).__name__}: {lines[0]}"
        if str(utterance.path) not in message:
            message = f"{utterance.path}: {message}"
        self.summary.failures.append(Failure(utterance.key, str(utterance.path), message))
        self.meter.finish(utterance)

    def _write(self) -> None:
        # In this order a shard never has a record of other bytes, wherever the process is killed.
        record_path(self.path).unlink(missing_ok=True)
        self.writer.write(self.path, self._ordered())
        sources = {self.writer.name(u): self.sources[u] for u in self.utterances if u in self.sources}
        ShardRecord(checksums(self.writer.files(self.path)), sources).write(self.path)

    def _ordered(self) -> list[R]:
        return [self.records[utterance] for utterance in self.utterances if utterance in self.records]


def _write_failures(path: Path, failures: Sequence[Failure]) -> None:
    if failures:
        write_text(path, "".join(json_line(asdict(failure)) for failure in failures))
    else:
        path.unlink(missing_ok=True)
