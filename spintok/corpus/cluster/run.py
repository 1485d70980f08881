"""A worker's whole run: take shards until all are finished, by whomever, then see that the folder is complete."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any, TypeVar

from spintok._files import json_line
from spintok.corpus.cluster.describe import describe_store
from spintok.corpus.cluster.leases import BEATS, Lease, Leases
from spintok.corpus.cluster.store import FolderStore, Store
from spintok.corpus.cluster.worker import Worker, open_worker
from spintok.corpus.errors import CorpusError
from spintok.corpus.folder import WORK, lock_folder
from spintok.corpus.job_meter import JobMeter
from spintok.corpus.job_options import JobOptions
from spintok.corpus.job_summary import JobSummary
from spintok.corpus.shard_record import parse_failures
from spintok.corpus.shard_writer import ShardWriter
from spintok.data.manifest import Utterance
from spintok.featurizer import Featurizer
from spintok.progress import Progress

__all__ = ["Work", "finish_run", "run_shared", "work_through"]

R = TypeVar("R")

Complete = Callable[[Worker[R]], Mapping[str, bytes]]
"""Makes the files of a folder whose shards are all finished, such as ``stats.json``."""

Work = Callable[[Worker[Any], JobSummary, JobMeter, float], None]
"""Sees to it that all shards are finished, with leases of so many seconds: ``work_through``, or an engine."""

_FINISHED = f"{WORK}/finished"


class _LeaseLostError(Exception):
    """The unit is finished, or its lease is gone."""


def run_shared(
    writer: ShardWriter[R],
    tokenizer: Featurizer,
    utterances: Sequence[Utterance],
    store: Store,
    options: JobOptions,
    summary: JobSummary,
    progress: Progress,
    complete: Complete[R],
    work: Work | None = None,
) -> None:
    """Work beside others on one list until every shard is in ``store``, and update ``summary``.

    With leases (``options.shared``), workers join and leave at any time; ``work`` is what this one does, by default
    ``work_through``. Otherwise this one does the shards of its rank.

    Raises:
        CorpusError: the store holds something else, or another worker computes otherwise.
        RemoteError: the store does not answer.
    """
    started = time.monotonic()
    if options.shared and not store.exclusive:
        raise CorpusError(
            f"{store.name}: this store cannot make a file on condition that there is none, which --shared needs; give "
            "each process its share by --rank and --ranks"
        )
    meter = JobMeter(progress, len(utterances))
    with ExitStack() as stack:
        if isinstance(store, FolderStore):
            # Keeps a run that is not shared out.
            stack.enter_context(lock_folder(store.folder, options))
        parts = describe_store(store, writer, utterances, options)
        worker = stack.enter_context(open_worker(writer, tokenizer, parts, store, options))
        worker.reopen()
        if len(worker.finished()) < len(parts):
            store.delete(_FINISHED)
        if options.shared:
            (work or work_through)(worker, summary, meter, options.lease_seconds)
        else:
            for index in sorted(set(range(options.rank, len(parts), options.ranks)) - worker.finished()):
                worker.encode(index, summary, meter)
        if len(worker.finished()) == len(parts):
            finish_run(worker, options.lease_seconds if options.shared else None, complete)
        summary.failures = [failure for content in worker.failures() for failure, _ in parse_failures(content)]
    summary.total = len(utterances)
    summary.resumed = summary.total - summary.encoded - len(summary.failures)
    summary.wall_seconds = time.monotonic() - started


def work_through(worker: Worker[R], summary: JobSummary, meter: JobMeter, seconds: float) -> None:
    """Take and encode shards until all are finished."""
    long = [i for i, part in enumerate(worker.parts) if len(part) == 1]
    leases = Leases(
        worker.store,
        len(worker.parts),
        worker.name,
        worker.finished,
        worker.is_finished,
        seconds=seconds,
        # A long recording that is begun last would keep everybody waiting.
        first=long if len(long) < len(worker.parts) else (),
    )
    counted: set[int] = set()
    for lease in _taken(leases):
        for index in leases.finished - counted:
            meter.skip(len(worker.parts[index]))
        counted = set(leases.finished) | {lease.unit}
        with _held(leases, lease, seconds) as alive:
            worker.encode(lease.unit, summary, meter, alive)


def finish_run(worker: Worker[R], seconds: float | None, complete: Complete[R]) -> None:
    """Write what a folder needs beside its shards, unless another worker does.

    Args:
        worker: the worker that finds a folder whose shards are all finished.
        seconds: the duration of a lease; None without leases.
        complete: makes the files.
    """
    store = worker.store
    if seconds is None:
        _finish(worker, complete)
        return
    leases = Leases(
        store,
        1,
        worker.name,
        lambda: {0} if store.exists(_FINISHED) else set(),
        lambda unit: store.exists(_FINISHED),
        seconds=seconds,
        kind="finish-",
    )
    for lease in _taken(leases):
        with _held(leases, lease, seconds):
            _finish(worker, complete)


def _finish(worker: Worker[R], complete: Complete[R]) -> None:
    store = worker.store
    for name, content in complete(worker).items():
        store.write(name, content)
    rows = [json_line(asdict(failure)) for content in worker.failures() for failure, _ in parse_failures(content)]
    if rows:
        store.write("failed.jsonl", "".join(rows).encode())
    else:
        store.delete("failed.jsonl")
    store.write(_FINISHED, b"all shards are finished\n")


def _taken(leases: Leases) -> Iterator[Lease]:
    """Units to do, one after the other, until all are done; waits while others do the last ones."""
    while True:
        lease = leases.take()
        if lease is not None:
            yield lease
        elif leases.done:
            return
        else:
            time.sleep(leases.pause())


@contextmanager
def _held(leases: Leases, lease: Lease, seconds: float) -> Iterator[Callable[[], None]]:
    """Keep a lease while the block runs, and give it back after; yields what raises when the unit is not needed."""
    stop, lost = threading.Event(), threading.Event()

    def beat() -> None:
        while not stop.wait(seconds / BEATS):
            try:
                if not leases.beat(lease):
                    lost.set()
                    return
            except OSError:
                # The next beat may succeed; if not, the unit is done twice.
                continue

    def alive() -> None:
        if lost.is_set():
            raise _LeaseLostError

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    finished = False
    try:
        yield alive
        finished = True
    except _LeaseLostError:
        pass
    finally:
        stop.set()
        thread.join()
        leases.release(lease, finished=finished)
