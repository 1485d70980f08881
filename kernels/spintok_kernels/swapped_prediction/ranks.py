"""Collectives inside an op. An op takes plain values only, so a process group is passed by name ("" for none)."""

import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d

__all__ = ["group_name", "max_over_ranks", "sum_over_ranks", "world_size"]


def group_name(group: dist.ProcessGroup | None) -> str:
    """Return the name by which an op looks up `group`."""
    return "" if group is None else str(group.group_name)


def world_size(group: str) -> int:
    """Return the number of ranks, 1 without a group."""
    return dist.get_world_size(_find(group)) if group else 1


def sum_over_ranks(x: Tensor, group: str) -> Tensor:
    """Sum `x` over the ranks in place; leave it as it is without a group."""
    if group:
        dist.all_reduce(x, dist.ReduceOp.SUM, group=_find(group))
    return x


def max_over_ranks(x: Tensor, group: str) -> Tensor:
    """Take the elementwise maximum of `x` over the ranks in place; leave it as it is without a group."""
    if group:
        dist.all_reduce(x, dist.ReduceOp.MAX, group=_find(group))
    return x


def _find(group: str) -> dist.ProcessGroup:
    # torch's functional collectives look groups up the same way; there is no public function.
    return distributed_c10d._resolve_process_group(group)  # type: ignore[attr-defined, arg-type]
