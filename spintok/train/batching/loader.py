"""Batches prepared ahead of time, in processes of their own."""

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from spintok.train.batching.examples import Batch, Examples
from spintok.train.batching.plan import BatchPlan, Place, Planned

__all__ = ["load_batches"]

# Batches that a worker prepares ahead.
_AHEAD = 4


class _Prepared(Dataset[Batch | ValueError]):
    """Batches by their plan. An error travels as a value: a worker's would come with a page of traceback."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples

    def __getitem__(self, planned: Planned) -> Batch | ValueError:
        try:
            return self._examples(planned)
        except ValueError as error:
            return ValueError(str(error))


class _Plans:
    def __init__(self, plan: BatchPlan, place: Place) -> None:
        self._plan = plan
        self._place = place

    def __iter__(self) -> Iterator[Planned]:
        return self._plan.from_place(self._place)


def load_batches(
    examples: Examples, plan: BatchPlan, place: Place, *, workers: int, device: torch.device
) -> Iterator[Batch]:
    """This rank's batches from ``place`` on, without end, in the plan's order, on ``device``.

    ``workers`` processes with a thread each prepare them ahead; 0 prepares each when it is asked for.

    Raises:
        ValueError: as ``examples`` does.
    """
    loader = DataLoader(
        _Prepared(examples),
        batch_size=None,
        sampler=_Plans(plan, place),
        num_workers=workers,
        prefetch_factor=_AHEAD if workers else None,
        # A forked process of one that has run threads, or a GPU, may hang.
        multiprocessing_context="forkserver" if workers else None,
        pin_memory=device.type == "cuda",
    )
    for batch in loader:
        if isinstance(batch, ValueError):
            raise batch
        yield batch.to(device)
