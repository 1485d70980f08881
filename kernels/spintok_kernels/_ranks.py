"""Process groups inside ops: an op takes plain values, so a group travels by its name, "" for none."""

import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d

__all__ = ["group_name", "max_over_ranks", "sum_over_ranks", "world_size"]


def group_name(group: dist.ProcessGroup | None) -> str:
    """The name under which an op finds `group` again."""
    return "" if group is None else str(group.group_name)


def world_size(group: str) -> int:
    """The number of ranks, 1 without a group."""
    return dist.get_world_size(_find(group)) if group else 1


def sum_over_ranks(x: Tensor, group: str) -> Tensor:
    """`x` summed over the ranks, in place; untouched without a group."""
    if group:
        dist.all_reduce(x, dist.ReduceOp.SUM, group=_find(group))
    return x


def max_over_ranks(x: Tensor, group: str) -> Tensor:
    """The elementwise maximum of `x` over the ranks, in place; untouched without a group."""
    if group:
        dist.all_reduce(x, dist.ReduceOp.MAX, group=_find(group))
    return x


def _find(group: str) -> dist.ProcessGroup:
    # The look-up that torch's own functional collectives use; there is no public one.
    return distributed_c10d._resolve_process_group(group)  # type: ignore[attr-defined, arg-type]
