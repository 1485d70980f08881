"""One shard: take what earlier runs left of it, encode what is missing, and write it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from spintok.corpus.errors import CorpusError
from spintok.corpus.job_meter import JobMeter
from spintok.corpus.job_summary import Failure, JobSummary
from spintok.corpus.journal import Journal, journal_path, read_journal
from spintok.corpus.partial import Partial, partial_path
from spintok.corpus.read_ahead import OpenRecording, ReadAhead
from spintok.corpus.shard_record import (
    ShardRecord,
    checksums,
    read_record,
    record_path,
    write_failures,
)
from spintok.corpus.shard_writer import ShardWriter
from spintok.corpus.token_formats import ShardError
from spintok.data.locations.addresses import source_of, sources_of
from spintok.data.locations.base import Source
from spintok.data.utterance import Utterance
from spintok.frames import SAMPLE_RATE

__all__ = ["ShardJob"]

R = TypeVar("R")


@dataclass
class ShardJob(Generic[R]):
    """One shard on its way to being complete.

    ``records`` and ``sources`` (by utterance) grow from the shard on disk, the journal, and what is encoded now.

    Attributes:
        earlier: shards that other processes left elsewhere, whole or with a journal; they are only read.
        alive: called between utterances; what it raises ends the job, which another can continue.
        failures: the utterances that could not be encoded, when ``run`` has ended.
    """

    writer: ShardWriter[R]
    path: Path
    utterances: Sequence[Utterance]
    summary: JobSummary
    meter: JobMeter
    earlier: Sequence[Path] = ()
    alive: Callable[[], None] = lambda: None
    failures: list[Failure] = field(default_factory=list)
    records: dict[Utterance, R] = field(default_factory=dict)
    sources: dict[Utterance, Source] = field(default_factory=dict)

    def run(self, reader: ReadAhead) -> None:
        """Encode what the shard lacks, and write it."""
        self.summary.total += len(self.utterances)
        journaled = journal_path(self.path).exists()
        if self.path.exists() and not journaled:
            self._load(self.path, strict=True)
        if journaled or not self.path.exists() or len(self.records) < len(self.utterances):
            with self._open_journal() as journal, self.writer.scratch(self.path):
                if journaled:
                    # The last run was killed, perhaps while it replaced the shard: its journal has what is new.
                    self._load(self.path, strict=False)
                    self._replay(journal.entries)
                for path in self.earlier:
                    # A shard without a record may come from a worker that was killed between the two.
                    if record_path(path).exists():
                        self._load(path, strict=False)
                    self._replay(read_journal(journal_path(path), self._identity))
                self._count_resumed()
                self._encode_missing(reader, journal)
                self._write()
                # The scratch file first: without its journal nothing would delete it.
                self.writer.discard_scratch(self.path)
                partial_path(self.path).unlink(missing_ok=True)
                journal.delete()
        else:
            self._count_resumed()
        self.writer.shard_done(self.records)

    @cached_property
    def _now(self) -> dict[Utterance, Source | None]:
        """What the audio files are now."""
        return dict(zip(self.utterances, sources_of([u.path for u in self.utterances]), strict=True))

    @property
    def _identity(self) -> dict[str, Any]:
        described = self.writer.describe()
        return {"spintok_journal": 2, **{name: described[name] for name in self.writer.mismatches}}

    def _open_journal(self) -> Journal:
        try:
            return Journal(journal_path(self.path), self._identity)
        except BlockingIOError:
            raise CorpusError(f"{self.path}: another process is writing this shard; run one per rank") from None

    def _load(self, shard: Path, *, strict: bool) -> None:
        """Take the records of a shard on disk; a damaged one is an error, or skipped when not ``strict``."""
        try:
            record = read_record(shard)
            found = checksums(self.writer.files(shard))
            if record is not None and found != record.sha256:
                raise ShardError(f"{shard}: damaged: its SHA-256 is not the recorded one")
            stored = self.writer.read(shard)
        except (ShardError, FileNotFoundError) as error:
            if strict:
                raise CorpusError(f"{error}; delete this shard to encode it again") from None
            return
        if record is None:
            record = ShardRecord(found, {})
            if shard == self.path:
                record.write(shard)
        for utterance in self.utterances:
            name = self.writer.name(utterance)
            if name in stored:
                self._take(utterance, stored[name], record.sources.get(name))

    def _replay(self, entries: Sequence[Any]) -> None:
        by_name = {self.writer.name(utterance): utterance for utterance in self.utterances}
        for entry in entries:
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
        now = self._now[utterance]
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
                self.alive()
                source = portion[utterance].source
                name = self.writer.name(utterance)
                journal.append({"name": name, "source": source, "record": self.writer.to_entry(record)})
                self.records[utterance] = record
                if source is not None:
                    self.sources[utterance] = source
                self.summary.encoded += 1
                self.summary.audio_seconds += self.meter.finish(utterance, samples / SAMPLE_RATE)

    def _encode(self, portion: Mapping[Utterance, OpenRecording]) -> Iterator[tuple[Utterance, R, int]]:
        """The records of a portion. When encoding fails, parts of it are tried, and utterances that fail are listed."""
        left = dict(portion)
        try:
            for utterance, record, samples in self._encode_portion(portion):
                del left[utterance]
                yield utterance, record, samples
        except OSError:
            # Readers turn theirs into AudioError, so this is the output: a full disk concerns every utterance.
            raise
        except Exception as error:
            if len(portion) > 1:
                # Too little memory calls for smaller portions, and any other error for finding whose it is.
                size = len(portion) // 2 if isinstance(error, MemoryError | torch.OutOfMemoryError) else 1
                items = list(left.items())
                for start in range(0, len(items), size):
                    yield from self._encode(dict(items[start : start + size]))
            else:
                self._fail(next(iter(portion)), error)

    def _encode_portion(self, portion: Mapping[Utterance, OpenRecording]) -> Iterator[tuple[Utterance, R, int]]:
        progress = partial(self.meter.advance, portion)
        recordings = {utterance: opened.recording for utterance, opened in portion.items()}
        if len(portion) > 1 or next(iter(recordings.values())).waveform is not None:
            yield from self.writer.encode(recordings, progress)
            return
        ((utterance, opened),) = portion.items()
        kept = self._partial(utterance, opened.source)
        yield utterance, *self.writer.encode_long(utterance, opened.recording, kept, progress)

    def _partial(self, utterance: Utterance, source: Source | None) -> Partial:
        """What is kept of a long recording; nothing if its file could have changed unnoticed."""
        about = None if source is None else {**self._identity, "name": self.writer.name(utterance), "source": source}
        return Partial(self.path, about, self.earlier)

    def _fail(self, utterance: Utterance, error: Exception) -> None:
        lines = str(error).strip().splitlines() or [""]
        message = lines[0] if isinstance(error, ValueError) else f"{type(error).__name__}: {lines[0]}"
        if str(utterance.path) not in message:
            message = f"{utterance.path}: {message}"
        self.failures.append(Failure(utterance.key, str(utterance.path), message))
        self.meter.finish(utterance)

    def _write(self) -> None:
        # In this order a shard never has a record of other bytes, wherever the process is killed.
        record_path(self.path).unlink(missing_ok=True)
        self.writer.write(self.path, self._ordered())
        failed = {failure.key for failure in self.failures}
        write_failures(self.path, self.failures, {u.key: source_of(u.path) for u in self.utterances if u.key in failed})
        sources = {self.writer.name(u): self.sources[u] for u in self.utterances if u in self.sources}
        ShardRecord(checksums(self.writer.files(self.path)), sources).write(self.path)
        self.summary.failures += self.failures

    def _ordered(self) -> list[R]:
        return [self.records[utterance] for utterance in self.utterances if utterance in self.records]
