"""The compiled CPU passes of Sinkhorn and the loss."""

import ctypes
import math

import torch
from torch import Tensor

from spintok_kernels.native import LEVELS, NativeLibrary, share_threads

__all__ = ["LOSS", "column_logsumexp", "column_totals", "swap"]

LOG2_E = 1 / math.log(2)


def _declare(library: ctypes.CDLL) -> None:
    share_threads(library.spintok_loss_use)
    pointer, size, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
    scores: list[type] = [pointer, size, size]
    run: list[type] = [number, number]
    library.spintok_loss_groups.argtypes = [size]
    library.spintok_loss_groups.restype = size
    library.spintok_column_logsumexp.argtypes = [*scores, size, real, *run, pointer]
    library.spintok_column_totals.argtypes = [*scores, size, real, pointer, *run, pointer]
    library.spintok_swap.argtypes = [*scores, real, pointer, real, number, number, *run, *[pointer] * 3]


LOSS = NativeLibrary("loss", abi=2, declare=_declare, portable=True)


def column_logsumexp(scores: Tensor, scale: float) -> Tensor:
    """Return log sum_i exp(scale * scores[v, i, j]), (V, K) float64."""
    sums = _group_sums(scores)
    _call("spintok_column_logsumexp", scores, *scores.shape, scale * LOG2_E, sums)
    return torch.logsumexp(sums.mul_(math.log(2)), 0)


def column_totals(scores: Tensor, scale: float, u: Tensor) -> Tensor:
    """Return S_j = sum_i softmax_j(scale * scores[v, i] + u[v]), (V, K) float64."""
    sums = _group_sums(scores)
    u = (u * LOG2_E).float()
    _call("spintok_column_totals", scores, *scores.shape, scale * LOG2_E, u, sums)
    return sums.sum(0)


def swap(
    scores: Tensor, scale: float, u: Tensor, temperature: float, grad: bool, metrics: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the same as `spintok_kernels.swapped_prediction.torch.swap`."""
    sums = _group_sums(scores) if metrics else None
    counts = _group_sums(scores) if metrics else None
    numbers = torch.empty((_groups(scores), 2), dtype=torch.float64)
    u = (u * LOG2_E).float()
    shape, scales = scores.shape[1:], (scale * LOG2_E, u, LOG2_E / temperature)
    _call("spintok_swap", scores, *shape, *scales, grad, metrics, sums, counts, numbers)
    loss, same = numbers.sum(0)
    if sums is None or counts is None:
        empty = numbers.new_zeros(scores.shape[::2])
        return loss, empty, empty, same
    return loss, sums.sum(0), counts.sum(0), same


def _groups(scores: Tensor) -> int:
    return int(LOSS.functions().spintok_loss_groups(scores.shape[1]))


def _group_sums(scores: Tensor) -> Tensor:
    views, _, k = scores.shape
    return torch.empty((_groups(scores), views, k), dtype=torch.float64)


def _call(function: str, *arguments: Tensor | int | float | None) -> None:
    """Pass tensors as addresses, and insert the instruction set and the thread count before the results."""
    core, _ = LOSS.choose()
    results = {"spintok_swap": 3}.get(function, 1)
    assert all(x.is_contiguous() for x in arguments if isinstance(x, Tensor))
    plain = [x.data_ptr() if isinstance(x, Tensor) else x for x in arguments]
    plain[-results:-results] = [LEVELS.index(core), torch.get_num_threads()]
    status = getattr(LOSS.functions(), function)(*plain)
    if status == 1:
        raise MemoryError(f"{function}: out of memory for a row of scores")
    if status:
        raise RuntimeError(f"{function}: this CPU does not support the {core} core")
