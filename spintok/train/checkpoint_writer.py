"""When to save a checkpoint, and writing it while training goes on.

Saving is a copy of all tensors, for which training waits, and then a digest and a file in a thread. Checkpoints are as
frequent as their cost permits: a killed run of a small model loses some two seconds, and a large model is not slowed
down by more than ``COST``.
"""

import os
import threading
import time
from types import TracebackType

from torch import Tensor, nn
from torch.optim import Optimizer

from spintok.train.checkpoint import Checkpoints, TrainState, snapshot

__all__ = ["CheckpointWriter"]

COST = 0.02
"""The part of the machine's time that checkpoints may take: the copy, and the thread's share of the processors."""
WRITING = 0.1
"""The part of the time that the thread may be writing, so that others can use the disk too."""
FIRST = 0.5
"""Seconds until the first checkpoint of a process, so that one that is killed again and again gets on."""
SHORTEST = 2.0
"""Seconds between two checkpoints that cost nothing."""
LONGEST = 600.0
"""Seconds between two checkpoints, whatever they cost."""


class CheckpointWriter:
    """Writes the checkpoints of a run; use it as a context manager, which waits for the last write.

    It keeps one copy of the weights and of the optimizer's state in memory.

    Args:
        checkpoints: writes the files.
        model, optimizer: the run's model and optimizer.
        minutes: between two checkpoints; None for as often as the cost permits.
    """

    def __init__(self, checkpoints: Checkpoints, model: nn.Module, optimizer: Optimizer, minutes: float | None) -> None:
        self._checkpoints = checkpoints
        self._model, self._optimizer = model, optimizer
        self._interval = FIRST if minutes is None else 60 * minutes
        self._adapts = minutes is None
        self._tensors: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._last = time.monotonic()
        self._waited = 0.0

    def __enter__(self) -> "CheckpointWriter":
        self._last = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        elif self._thread is not None:
            self._thread.join()

    def due(self) -> bool:
        """Whether it is time for a checkpoint. Raises the error of a write that failed."""
        if self._error is not None:
            self.finish()
        return time.monotonic() >= self._last + self._interval

    def save(self, state: TrainState) -> None:
        """Copy weights and optimizer as they are now, and start to write them with the progress ``state``.

        Raises the error of the write before, which it waits for.
        """
        started = time.monotonic()
        self.finish()
        snapshot(self._model, self._optimizer, self._tensors)
        self._last = time.monotonic()
        self._waited = self._last - started
        self._thread = threading.Thread(target=self._write, args=(state,), name="checkpoint")
        self._thread.start()

    def finish(self) -> None:
        """Wait until everything is written. Raises the error of a write that failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write(self, state: TrainState) -> None:
        started, computed = time.monotonic(), time.thread_time()
        try:
            self._checkpoints.write(self._tensors, state)
        except BaseException as error:
            self._error = error
        if self._adapts:
            cost = self._waited + (time.thread_time() - computed) / _processors()
            self._interval = _interval(cost, time.monotonic() - started)


def _interval(cost: float, writing: float) -> float:
    """Seconds between two checkpoints, each of which takes ``cost`` s of the machine and ``writing`` s of the disk."""
    return min(LONGEST, max(SHORTEST, cost / COST, writing / WRITING))


def _processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
