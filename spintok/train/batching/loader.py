"""Load batches ahead of time in worker processes."""

import multiprocessing
import signal
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from spintok.train.batching.examples import Batch, Examples
from spintok.train.batching.plan import BatchPlan, BatchSpec, Position

__all__ = ["load_batches"]

# Batches that each worker prepares ahead.
_PREFETCH = 4


class _Batches(Dataset[Batch | ValueError]):
    """Batches by their spec. An error is returned as a value: ``DataLoader`` would add the worker's traceback to it."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples

    def __getitem__(self, spec: BatchSpec) -> Batch | ValueError:
        try:
            return self._examples(spec)
        except ValueError as error:
            return ValueError(str(error))


class _Sampler:
    def __init__(self, plan: BatchPlan, position: Position) -> None:
        self._plan = plan
        self._position = position

    def __iter__(self) -> Iterator[BatchSpec]:
        return self._plan.specs_from(self._position)


def load_batches(
    examples: Examples, plan: BatchPlan, position: Position, *, workers: int, device: torch.device
) -> Iterator[Batch]:
    """This process's batches from ``position`` on, in the order of the plan, without end, on ``device``.

    ``workers`` single-threaded processes prepare them ahead of time; with 0, each is prepared when it is requested.

    Raises:
        ValueError: a recording cannot be read, or another error of ``examples``.
    """
    if workers:
        # Imported once, before workers are forked: each would take seconds to import torch.
        multiprocessing.set_forkserver_preload(["__main__", __name__])
    loader = DataLoader(
        _Batches(examples),
        batch_size=None,
        sampler=_Sampler(plan, position),
        num_workers=workers,
        prefetch_factor=_PREFETCH if workers else None,
        # A process forked from one with running threads or a GPU may hang.
        multiprocessing_context="forkserver" if workers else None,
        worker_init_fn=_ignore_signals if workers else None,
        pin_memory=device.type == "cuda",
    )
    for batch in loader:
        if isinstance(batch, ValueError):
            raise batch
        yield batch.to(device)


def _ignore_signals(worker: int) -> None:
    """Leave Ctrl-C and SIGTERM, which may go to the whole process group, to the training process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
