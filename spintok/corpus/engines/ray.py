"""Ray: ``spintok encode --engine ray`` on a whole cluster, and a class for ``Dataset.map_batches``.

A run on Ray is a number of shared workers, each a Ray task, that take shards by leases. Ray decides where they run,
starts them again when their node is lost, and needs to know nothing else.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from spintok._files import require
from spintok.corpus.cluster.worker import Worker
from spintok.corpus.engines.rows import RowEncoder
from spintok.corpus.errors import CorpusError
from spintok.corpus.job_meter import JobMeter
from spintok.corpus.job_options import JobOptions
from spintok.corpus.job_summary import JobSummary
from spintok.corpus.shard_record import parse_failures
from spintok.corpus.token_formats import load_pyarrow
from spintok.data.manifest import Utterance
from spintok.featurizer import Featurizer
from spintok.progress import Progress, no_progress

__all__ = ["EngineWarning", "RayEncoder", "encode_on_ray"]

S = TypeVar("S", bound=JobSummary)

Encode = Callable[..., S]
"""``encode_corpus`` or ``encode_features``."""

_RETRIES = 20
"""How often Ray starts a worker again whose process or node died; not for ever, as a file may kill its readers."""
_LOOK = 1.0
"""Seconds between two looks at what is finished."""
_GRACE = 5.0
"""Seconds for a worker to end."""


class EngineWarning(UserWarning):
    """A worker stopped, and the others finished its work."""


class RayEncoder:
    """Adds tokens to the batches of a Ray Data set: ``dataset.map_batches(RayEncoder, batch_format="pyarrow", ...)``.

    The columns that are added: ``units`` and ``duration`` (lists of int32; more for further codebooks),
    ``num_samples``, ``num_frames``, and ``error``, null but for recordings that cannot be used.

    All actors of a ``map_batches`` should compute on one kind of device, which ``num_gpus=`` and ``device`` decide.

    Args:
        column: holds paths or addresses, contents of audio files as bytes, or Hugging Face's audio values
            ``{bytes, path}``. Paths are best: what Ray Data decodes itself fills memory with float32.
        **options: of ``spintok.corpus.engines.rows.RowEncoder``: ``tokenizer``, ``codebook``, ``dedup``, ``device``,
            ``latency``, ``batch_seconds``, ``threads``.
    """

    def __init__(self, column: str = "path", **options: Any) -> None:
        self._column = column
        self._encode = RowEncoder(**options)

    def __call__(self, table: Any) -> Any:
        """The table (``pyarrow.Table``) with further columns.

        Raises:
            TypeError: the batch is of another format.
            ValueError: it lacks the column of audio, or has one of those that are added.
        """
        pyarrow, _ = load_pyarrow()
        if not isinstance(table, pyarrow.Table):
            raise TypeError(f'RayEncoder reads Arrow tables, got a {type(table).__name__}: add batch_format="pyarrow"')
        if self._column not in table.column_names:
            columns = ", ".join(table.column_names)
            raise ValueError(f"no column {self._column!r}: name the one with audio by column=; there are {columns}")
        numbers, whole = pyarrow.list_(pyarrow.int32()), pyarrow.int64()
        types = dict.fromkeys(self._encode.arrays, numbers)
        types |= {"num_samples": whole, "num_frames": whole, "error": pyarrow.string()}
        if taken := sorted(types.keys() & set(table.column_names)):
            raise ValueError(f"the data have a column {taken[0]!r} already: rename it")
        rows = self._encode(table[self._column].to_pylist())
        for name, kind in types.items():
            table = table.append_column(name, pyarrow.array([row[name] for row in rows], kind))
        return table


def encode_on_ray(
    encode: Encode[S],
    tokenizer: Featurizer,
    utterances: Sequence[Utterance],
    output: Path | str,
    options: JobOptions,
    progress: Progress = no_progress,
    *,
    device: str = "auto",
    workers: int | None = None,
) -> S:
    """Encode as ``encode`` does, by workers on the Ray cluster of ``RAY_ADDRESS``, of this machine, or a new local one.

    Args:
        encode: ``encode_corpus`` or ``encode_features``.
        tokenizer, utterances, output, options, progress: see ``encode``. The tokenizer and the list are sent to the
            workers, which have to reach the audio and the output.
        device: "cuda": a GPU for each worker; "cpu": a core; "auto": GPUs if the cluster has any.
        workers: how many; by default as many as the cluster has GPUs or cores.

    Raises:
        CorpusError: as ``encode``; or all workers stopped before the end.
        MissingPackageError: Ray is not installed.
        ValueError: another device, or fewer than one worker.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"Ray chooses among the GPUs of a node: device is auto, cpu or cuda, got {device!r}")
    if workers is not None and workers < 1:
        raise ValueError(f"a run needs at least one worker, got {workers}")
    ray = require("ray", extra="ray", purpose="the engine ray")
    options = replace(options, shared=True)
    # Where the workers have GPUs, this process may have none.
    portable = tokenizer if tokenizer.device.type == "cpu" else deepcopy(tokenizer).cpu()
    with _connected(ray):
        running = _Workers(ray, encode, (portable, utterances), (output, options), device, workers)
        try:
            summary = encode(tokenizer, utterances, output, options, progress, work=running)
            running.collect(options.lease_seconds / 8 + _GRACE, everyone=True)
        finally:
            running.cancel()
    summary.audio_seconds = running.audio_seconds
    if running.errors:
        warnings.warn(
            f"{len(running.errors)} of {running.count} workers stopped, and others did their work: {running.cause}",
            EngineWarning,
            stacklevel=2,
        )
    return summary


@contextmanager
def _connected(ray: Any) -> Iterator[None]:
    """Ray as it is initialised, or else connected for the time of the block."""
    if ray.is_initialized():
        yield
        return
    # Nothing of a user's corpus is reported to Ray's authors unless the user asks for it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


class _Workers:
    """Shared workers as Ray tasks; called, they are started, and the call returns when every shard is finished."""

    def __init__(
        self, ray: Any, encode: Encode[S], data: tuple[Any, ...], job: tuple[Any, ...], device: str, count: int | None
    ) -> None:
        self._ray = ray
        found = ray.cluster_resources()
        gpu = device == "cuda" or (device == "auto" and found.get("GPU", 0) >= 1)
        self.count = count or max(1, int(found.get("GPU" if gpu else "CPU", 1)))
        self._data = data
        self._arguments = (encode, *job, "cuda" if gpu else "cpu", str(Path.cwd()))
        self._task = ray.remote(_work).options(
            num_cpus=1, num_gpus=int(gpu), max_retries=_RETRIES, scheduling_strategy="SPREAD"
        )
        self._running: list[Any] = []
        self.errors: list[Exception] = []
        self.audio_seconds = 0.0

    def __call__(self, watcher: Worker[Any], summary: JobSummary, meter: JobMeter, seconds: float) -> None:
        before = watcher.finished()
        seen: set[int] = set()
        while True:
            finished = watcher.finished()
            meter.skip(sum(len(watcher.parts[index]) for index in finished - seen))
            seen |= finished
            if len(seen) == len(watcher.parts):
                break
            if not self.errors and not self._running:
                data = [self._ray.put(part) for part in self._data]
                self._running = [self._task.remote(*data, *self._arguments) for _ in range(self.count)]
            if not self._running:
                raise CorpusError(f"all {self.count} workers stopped before the end: {self.cause}") from self.errors[0]
            self.collect(_LOOK)
        keys = {utterance.key for index in seen - before for utterance in watcher.parts[index]}
        failed = {failure.key for content in watcher.failures() for failure, _ in parse_failures(content)}
        summary.encoded = len(keys - failed)

    @property
    def cause(self) -> str:
        """The first error in one line."""
        error = self.errors[0]
        lines = str(getattr(error, "cause", None) or error).strip().splitlines()
        return lines[0] if lines else type(error).__name__

    def collect(self, patience: float, *, everyone: bool = False) -> None:
        """Wait some seconds for a worker, or for all, to end, and take what they return."""
        if not self._running:
            return
        wanted = len(self._running) if everyone else 1
        done, self._running = self._ray.wait(self._running, num_returns=wanted, timeout=patience)
        for reference in done:
            try:
                self.audio_seconds += self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                self.errors.append(error)

    def cancel(self) -> None:
        """Interrupt the workers that run, which give back their shards, and forget those that Ray never started."""
        for reference in self._running:
            self._ray.cancel(reference)
        if self._running:
            self._ray.wait(self._running, num_returns=len(self._running), timeout=_GRACE)


def _work(
    tokenizer: Featurizer,
    utterances: Sequence[Utterance],
    encode: Encode[S],
    output: Path | str,
    options: JobOptions,
    device: str,
    folder: str,
) -> float:
    """One shared worker; the seconds of audio that it encoded."""
    # Relative paths, which the shards hold, are those of the driver; without any, the folder need not be here.
    if Path(folder).is_dir():
        os.chdir(folder)
    return encode(tokenizer.to(device), utterances, output, options).audio_seconds
