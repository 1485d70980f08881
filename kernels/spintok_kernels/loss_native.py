"""The compiled CPU passes of Sinkhorn and the loss: found, matched to the machine, called."""

from __future__ import annotations

import ctypes
import importlib.util
import math
import os
import warnings
from functools import cache
from typing import Literal, cast, get_args

import torch
from torch import Tensor

__all__ = ["Core", "choose", "column_logsumexp", "column_totals", "swap"]

Core = Literal["avx512", "avx2", "portable", "torch"]

# Forces a core, for tests and benchmarks.
VARIABLE = "SPINTOK_LOSS_CPU"
# The library's levels, in its own order.
LEVELS: tuple[Core, ...] = ("portable", "avx2", "avx512")
ABI = 1
LOG2_E = 1 / math.log(2)


def choose() -> tuple[Core, str]:
    """The core for float32 scores on this CPU, and why; float64 always runs on torch.

    RuntimeError if a forced one cannot run.
    """
    library, why_not = _library()
    forced = os.environ.get(VARIABLE)
    if not forced:
        if library is None:
            _warn(why_not)
            return "torch", why_not
        return LEVELS[library.spintok_loss_isa()], f"the best this CPU can run of {', '.join(LEVELS)}"
    if forced not in get_args(Core):
        raise ValueError(f"{VARIABLE}={forced}: not one of {', '.join(get_args(Core))}")
    if forced != "torch":
        if library is None:
            raise RuntimeError(f"{VARIABLE}={forced}: {why_not}")
        if LEVELS.index(cast(Core, forced)) > library.spintok_loss_isa():
            raise RuntimeError(f"{VARIABLE}={forced}: this CPU cannot run it")
    return cast(Core, forced), f"{VARIABLE} is set"


def column_logsumexp(scores: Tensor, scale: float) -> Tensor:
    """log sum_i exp(scale * scores[v, i, j]) -> (V, K), float64."""
    sums = _group_sums(scores)
    _call("spintok_column_logsumexp", scores, *scores.shape, scale * LOG2_E, sums)
    return torch.logsumexp(sums.mul_(math.log(2)), 0)


def column_totals(scores: Tensor, scale: float, u: Tensor) -> Tensor:
    """S_j = sum_i softmax_j(scale * scores[v, i] + u[v]) -> (V, K), float64."""
    sums = _group_sums(scores)
    u = (u * LOG2_E).float()
    _call("spintok_column_totals", scores, *scores.shape, scale * LOG2_E, u, sums)
    return sums.sum(0)


def swap(
    scores: Tensor, scale: float, u: Tensor, temperature: float, grad: bool, metrics: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `loss_torch.swap`."""
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
    return int(_loaded().spintok_loss_groups(scores.shape[1]))


def _group_sums(scores: Tensor) -> Tensor:
    views, _, k = scores.shape
    return torch.empty((_groups(scores), views, k), dtype=torch.float64)


def _call(function: str, *arguments: Tensor | int | float | None) -> None:
    """Call with tensors as addresses; the instruction set and the threads come before the results."""
    core, _ = choose()
    results = {"spintok_swap": 3}.get(function, 1)
    assert all(x.is_contiguous() for x in arguments if isinstance(x, Tensor))
    plain = [x.data_ptr() if isinstance(x, Tensor) else x for x in arguments]
    plain[-results:-results] = [LEVELS.index(core), torch.get_num_threads()]
    status = getattr(_loaded(), function)(*plain)
    if status == 1:
        raise MemoryError(f"{function}: no memory for a row of scores")
    if status:
        raise RuntimeError(f"{function}: this CPU cannot run the {core} core")


def _loaded() -> ctypes.CDLL:
    library, why_not = _library()
    if library is None:
        raise RuntimeError(why_not)
    return library


@cache
def _warn(why_not: str) -> None:
    warnings.warn(f"spintok_kernels' loss and sinkhorn run on torch, slower: {why_not}", stacklevel=2)


@cache
def _library() -> tuple[ctypes.CDLL | None, str]:
    spec = importlib.util.find_spec("spintok_kernels._loss_cpu")
    if spec is None or spec.origin is None:
        return (
            None,
            "the compiled core was not built; install a C++ compiler (g++ or clang++) and reinstall spintok",
        )
    try:
        library = ctypes.CDLL(spec.origin)
        built = library.spintok_loss_abi()
    except (OSError, AttributeError) as error:
        return None, f"the compiled core does not load ({error}); reinstall spintok"
    if built != ABI:
        return None, f"the compiled core is of another version ({built}, not {ABI}); reinstall spintok"
    pointer, size, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
    scores: list[type] = [pointer, size, size]
    run: list[type] = [number, number]
    library.spintok_loss_groups.argtypes = [size]
    library.spintok_loss_groups.restype = size
    library.spintok_column_logsumexp.argtypes = [*scores, size, real, *run, pointer]
    library.spintok_column_totals.argtypes = [*scores, size, real, pointer, *run, pointer]
    library.spintok_swap.argtypes = [*scores, real, pointer, real, number, number, *run, *[pointer] * 3]
    return library, ""
