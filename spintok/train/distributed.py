"""Data parallelism: this process's rank, its device, and sums over all processes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Distributed", "init_distributed"]


@dataclass(frozen=True)
class Distributed:
    """One process of a data-parallel run.

    Attributes:
        device: the device that this process computes on.
        rank: number of this process, from 0.
        world_size: number of processes.
        group: the process group to reduce over; None for a single process.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1
    group: dist.ProcessGroup | None = None

    def sum(self, value: Tensor) -> Tensor:
        """The sum of ``value`` over all processes; ``value`` itself is not changed."""
        if self.group is None:
            return value
        total = value.clone()
        dist.all_reduce(total, group=self.group)
        return total

    def barrier(self) -> None:
        """Wait until all processes get here."""
        if self.group is not None:
            dist.barrier(group=self.group)


@contextmanager
def init_distributed(device: str) -> Iterator[Distributed]:
    """Join the processes that ``torchrun`` started, as its environment variables say; without them, run alone.

    Args:
        device: "cpu", "cuda", "cuda:N", or "auto", which is a GPU if there is one. Under ``torchrun`` each process of a
            machine gets a GPU of its own.

    Raises:
        ValueError: there is no such device.
    """
    local_rank, world_size = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"unknown device {device!r}: give cpu, cuda, cuda:N or auto") from None
    if chosen.type == "cuda":
        chosen = torch.device("cuda", local_rank if world_size > 1 else chosen.index or 0)
        if chosen.index >= torch.cuda.device_count():
            raise ValueError(f"device {chosen} does not exist: torch sees {torch.cuda.device_count()} CUDA GPUs")
        torch.cuda.set_device(chosen)
    if world_size == 1:
        yield Distributed(chosen)
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Distributed(chosen, dist.get_rank(), dist.get_world_size(), dist.group.WORLD)
    finally:
        dist.destroy_process_group()
