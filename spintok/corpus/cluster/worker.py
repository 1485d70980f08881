"""One shard from the list to the store: the function that every engine runs, at least once for each shard."""

import errno
import re
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from spintok.corpus.cluster.store import GONE, Store
from spintok.corpus.errors import CorpusError
from spintok.corpus.job_meter import JobMeter
from spintok.corpus.job_options import JobOptions
from spintok.corpus.job_summary import JobSummary
from spintok.corpus.read_ahead import ReadAhead
from spintok.corpus.shard_job import ShardJob
from spintok.corpus.shard_record import (
    ShardRecord,
    checksums,
    failures_path,
    parse_failures,
    parse_record,
    read_record,
    record_path,
)
from spintok.corpus.shard_writer import ShardWriter
from spintok.data.locations.addresses import source_of
from spintok.data.utterance import Utterance
from spintok.featurizer import Featurizer

__all__ = ["Worker", "open_worker"]

R = TypeVar("R")

_AGREEMENT = 8
"""Utterances of other workers that a worker encodes again before it joins them."""


@dataclass
class Worker(Generic[R]):
    """Encodes shards of one list to one store.

    Attributes:
        name: no other worker has it.
        writer, tokenizer, reader: encode utterances.
        parts: the utterances of each shard.
        store: where finished shards go.
    """

    name: str
    writer: ShardWriter[R]
    tokenizer: Featurizer
    reader: ReadAhead
    parts: Sequence[Sequence[Utterance]]
    store: Store

    def __post_init__(self) -> None:
        self._shards = [self.writer.path(Path(), index).name for index in range(len(self.parts))]
        suffix = re.escape(Path(self._shards[0]).suffix) if self._shards else ""
        self._record = re.compile(rf"\.{self.writer.stem}-(\d{{5,}}){suffix}\.record\.json")
        self._failed = re.compile(rf"\.({self.writer.stem}-\d{{5,}}{suffix})\.failed\.json")
        self._agrees = False

    def finished(self) -> set[int]:
        """The numbers of the finished shards."""
        found = map(self._record.fullmatch, self.store.sizes())
        return {index for match in found if match is not None and (index := int(match[1])) < len(self.parts)}

    def is_finished(self, index: int) -> bool:
        """Whether a shard is finished."""
        return self.store.exists(self._record_name(index))

    def encode(
        self, index: int, summary: JobSummary, meter: JobMeter, alive: Callable[[], None] = lambda: None
    ) -> None:
        """Encode what a shard lacks and publish it, unless another worker has meanwhile.

        Args:
            index: the number of the shard.
            summary: what was encoded and its duration are added.
            meter: reports the progress.
            alive: called between utterances; what it raises ends the work on this shard.

        Raises:
            CorpusError: another worker made other bytes of the same audio.
        """
        self._check_agreement()
        shard = self._shards[index]
        own = JobSummary()
        try:
            with self.store.workspace(shard, self.name) as folder:
                earlier = self.store.earlier(shard)
                job = ShardJob(self.writer, folder / shard, self.parts[index], own, meter, earlier, alive)
                job.run(self.reader)
                self._publish(index, folder / shard)
        except OSError as error:
            # Another worker that has finished the shard deletes the workspaces of all.
            if error.errno not in GONE or not self.is_finished(index):
                raise
            return
        summary.encoded += own.encoded
        summary.audio_seconds += own.audio_seconds
        self.store.clear(shard)

    def reopen(self) -> None:
        """Unfinish shards that lack utterances whose files were replaced since they failed."""
        for name in self.store.sizes():
            if (match := self._failed.fullmatch(name)) is None:
                continue
            content = self.store.read(name)
            failed = [] if content is None else parse_failures(content)
            if any(source_of(failure.file_name) != source for failure, source in failed):
                shard = Path(match[1])
                self.store.reopen([file.name for file in self.writer.files(shard)], record_path(shard).name)

    def failures(self) -> Iterator[bytes]:
        """The lists of failures of all shards."""
        for name in sorted(self.store.sizes()):
            if self._failed.fullmatch(name) is not None and (content := self.store.read(name)) is not None:
                yield content

    def records(self, folder: Path) -> Iterator[tuple[Sequence[Utterance], dict[str, R]]]:
        """The utterances of each shard and its records by name; ``folder`` is for copies.

        Raises:
            CorpusError: a shard is not what was written.
        """
        for index, (part, shard) in enumerate(zip(self.parts, self._shards, strict=True)):
            files = [self.store.fetch(file.name, folder) for file in self.writer.files(Path(shard))]
            content = self.store.read(self._record_name(index))
            if content is None or parse_record(content, shard).sha256 != checksums(files):
                raise CorpusError(
                    f"{self.store.name}: {shard} is damaged: its SHA-256 is not the recorded one; delete it and "
                    f"{self._record_name(index)} to encode it again"
                )
            yield part, self.writer.read(files[-1])
            for file in files:
                if file.parent == folder:
                    file.unlink()

    def _record_name(self, index: int) -> str:
        return record_path(Path(self._shards[index])).name

    def _publish(self, index: int, made: Path) -> None:
        mine = read_record(made)
        if mine is None:
            raise FileNotFoundError(errno.ENOENT, "the finished shard is gone", str(made))
        content = self.store.read(self._record_name(index))
        if content is not None:
            theirs = parse_record(content, self._record_name(index))
            if theirs.sha256 == mine.sha256:
                return
            self._refuse_other_bytes(index, mine, theirs)
            self.store.delete(self._record_name(index))
        for file in self.writer.files(made):
            self.store.publish(file)
        if failures_path(made).exists():
            self.store.publish(failures_path(made))
        else:
            self.store.delete(failures_path(made).name)
        # Last: with it the shard is finished.
        self.store.publish(record_path(made))

    def _refuse_other_bytes(self, index: int, mine: ShardRecord, theirs: ShardRecord) -> None:
        if mine.sources == theirs.sources:
            raise CorpusError(
                f"{self.store.name}: this worker and another made different {self._shards[index]} of the same audio; "
                "their machines do not compute alike: use one kind of device, and check with spintok verify"
            )

    def _check_agreement(self) -> None:
        """Encode some utterances of other workers again: machines that compute otherwise must not join."""
        if self._agrees:
            return
        for index in self.finished():
            for utterance, stored, again in self._encode_again(index):
                if not self.writer.equal(stored, again):
                    raise CorpusError(
                        f"{self.store.name}: {utterance.key!r} has other {self.writer.stem} on this worker "
                        f"({self.tokenizer.device}) than on the one that encoded it; they cannot share a run"
                    )
            self._agrees = True
            return

    def _encode_again(self, index: int) -> Iterator[tuple[Utterance, R, R]]:
        record = self.store.read(self._record_name(index))
        if record is None or not self.writer.comparable:
            return
        sources = parse_record(record, self._record_name(index)).sources
        with self.store.workspace("agreement", self.name) as folder:
            files = [self.store.fetch(file.name, folder) for file in self.writer.files(Path(self._shards[index]))]
            stored = self.writer.read(files[-1])
            same = [
                utterance
                for utterance in self.parts[index]
                if self.writer.name(utterance) in stored
                and sources.get(self.writer.name(utterance), ()) == source_of(utterance.path)
            ]
            for utterance in same[:_AGREEMENT]:
                opened = {utterance: self.tokenizer.record(utterance.path)}
                ((_, again, _),) = self.writer.encode(opened, lambda utterance, samples: None)
                yield utterance, stored[self.writer.name(utterance)], again


@contextmanager
def open_worker(
    writer: ShardWriter[R],
    tokenizer: Featurizer,
    parts: Sequence[Sequence[Utterance]],
    store: Store,
    options: JobOptions,
) -> Iterator[Worker[R]]:
    """A worker under a new name, with threads that read audio; interrupted, they start no more files."""
    pool = ThreadPoolExecutor(options.workers)
    try:
        reader = ReadAhead(tokenizer, pool, 4 * options.workers)
        name = f"{re.sub('[^A-Za-z0-9]', '-', socket.gethostname())[:40]}-{secrets.token_hex(8)}"
        yield Worker(name, writer, tokenizer, reader, parts, store)
    finally:
        pool.shutdown(cancel_futures=True)
