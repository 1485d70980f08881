"""Resumable, audited jobs that encode a list of utterances to a folder, one shard at a time.

A shard holds consecutive utterances of the list. So its bytes depend on the list, where that is cut and the tokenizer
only, not on batches, threads, ranks or earlier runs that were killed.

A job that is killed loses the utterances it was encoding: finished ones are in the shard's journal and are replayed by
the next run. Utterances that a shard lacks because their file failed are tried again, and so are those whose file has
another size or modification time than when it was encoded.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from spintok._files import json_line, write_text
from spintok.corpus.folder import lock_folder, prepare_folder, refuse_other_kind
from spintok.corpus.job_meter import JobMeter
from spintok.corpus.job_options import JobOptions
from spintok.corpus.job_summary import Failure, JobSummary
from spintok.corpus.parts import refuse_duplicates
from spintok.corpus.read_ahead import ReadAhead
from spintok.corpus.shard_job import ShardJob
from spintok.corpus.shard_writer import ShardWriter
from spintok.data.manifest import Utterance
from spintok.featurizer import Featurizer
from spintok.progress import Progress

__all__ = ["run_job"]

R = TypeVar("R")


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
    refuse_duplicates(writer, utterances)
    refuse_other_kind(output, writer.stem)
    output.mkdir(parents=True, exist_ok=True)
    with lock_folder(output, options), _threads(options.workers) as pool:
        all_parts = prepare_folder(output, writer, utterances, options)
        reader = ReadAhead(tokenizer, pool, 4 * options.workers)
        parts = {index: all_parts[index] for index in range(options.rank, len(all_parts), options.ranks)}
        meter = JobMeter(progress, sum(map(len, parts.values())))
        for index, part in parts.items():
            ShardJob(writer, writer.path(output, index), part, summary, meter).run(reader)
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


def _write_failures(path: Path, failures: Sequence[Failure]) -> None:
    if failures:
        write_text(path, "".join(json_line(asdict(failure)) for failure in failures))
    else:
        path.unlink(missing_ok=True)
