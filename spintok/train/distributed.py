"""The processes of one training run: this one's place among them, as ``torchrun`` says it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Ranks", "joined"]


@dataclass(frozen=True)
class Ranks:
    """This process's ``rank`` among ``size``, its device, and the group to reduce over (None when alone)."""

    device: torch.device
    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None

    def total(self, value: Tensor) -> Tensor:
        """The sum over the ranks; the argument stays as it is."""
        if self.group is None:
            return value
        summed = value.clone()
        dist.all_reduce(summed, group=self.group)
        return summed

    def wait(self) -> None:
        """Return when all ranks are here."""
        if self.group is not None:
            dist.barrier(group=self.group)


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """The run that this process belongs to, by ``torchrun``'s environment; alone without it.

    Args:
        device: "cpu", "cuda", "cuda:1" or "auto", which takes a GPU when there is one. Under ``torchrun`` each
            process of a machine takes its own GPU.

    Raises:
        ValueError: no such device.
    """
    local, size = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ValueError(f"unknown device {device!r}: say cpu, cuda, cuda:N or auto") from None
    if chosen.type == "cuda":
        chosen = torch.device("cuda", local if size > 1 else chosen.index or 0)
        if chosen.index >= torch.cuda.device_count():
            raise ValueError(f"device {chosen}: this torch sees {torch.cuda.device_count()} CUDA GPUs")
        torch.cuda.set_device(chosen)
    if size == 1:
        yield Ranks(chosen)
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Ranks(chosen, dist.get_rank(), dist.get_world_size(), dist.group.WORLD)
    finally:
        dist.destroy_process_group()
