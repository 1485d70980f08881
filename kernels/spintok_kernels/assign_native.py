"""The compiled CPU core of `assign`: finding it, asking what the machine can run, calling it."""

import ctypes
import os
import warnings
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Literal, cast, get_args

import torch
from torch import Tensor

__all__ = ["LEVELS", "VARIABLE", "Core", "assign_native", "choose", "warn_without_core"]

Core = Literal["avx512", "avx2", "portable", "torch"]

# Forces a core, for tests and benchmarks.
VARIABLE = "SPINTOK_ASSIGN_CPU"
# The library's levels, in its own order.
LEVELS: tuple[Core, ...] = ("portable", "avx2", "avx512")
ABI = 1


def choose() -> tuple[Core, str]:
    """The core that computes `assign` on this CPU, and why. RuntimeError if a forced one cannot run here."""
    library, why_not = _library()
    forced = os.environ.get(VARIABLE)
    if not forced:
        if library is None:
            return "torch", why_not
        best = LEVELS[library.spintok_assign_isa()]
        if best == "portable":
            return "torch", "this CPU has neither AVX2 nor AVX-512, where torch's matrix product is faster"
        return best, f"the best this CPU can run of {', '.join(LEVELS)}"
    if forced not in get_args(Core):
        raise ValueError(f"{VARIABLE}={forced}: not one of {', '.join(get_args(Core))}")
    if forced != "torch":
        if library is None:
            raise RuntimeError(f"{VARIABLE}={forced}: {why_not}")
        if LEVELS.index(cast(Core, forced)) > library.spintok_assign_isa():
            raise RuntimeError(f"{VARIABLE}={forced}: this CPU cannot run it")
    return cast(Core, forced), f"{VARIABLE} is set"


def assign_native(z: Tensor, codebook: Tensor, metric: str, core: Core, details: bool) -> tuple[Tensor, Tensor, Tensor]:
    """ids (N,) and, with `details`, scores and margins (N,), else empty ones. Checks nothing."""
    library, why_not = _library()
    if library is None:
        raise RuntimeError(why_not)
    ids = torch.empty(len(z), dtype=torch.int32)
    scores, margins = (torch.empty(len(z) if details else 0) for _ in range(2))
    status = library.spintok_assign(
        z.data_ptr(),
        *z.shape,
        codebook.data_ptr(),
        len(codebook),
        int(metric == "l2"),
        LEVELS.index(core),
        torch.get_num_threads(),
        ids.data_ptr(),
        scores.data_ptr() if details else None,
        margins.data_ptr() if details else None,
    )
    match status:
        case 0:
            return ids, scores, margins
        case 1:
            raise ValueError("codebooks: a codeword is not finite")
        case 2:
            raise MemoryError("assign: no memory for the packed codebook")
        case _:
            raise RuntimeError(f"assign: this CPU cannot run the {core} core")


def warn_without_core() -> None:
    """Say once that the compiled core is missing where it could be had."""
    if not os.environ.get(VARIABLE):
        _warn()


@cache
def _warn() -> None:
    library, why_not = _library()
    if library is None:
        warnings.warn(f"spintok_kernels.assign runs on torch, at about half the speed: {why_not}", stacklevel=2)


@cache
def _library() -> tuple[ctypes.CDLL | None, str]:
    names = [Path(__file__).with_name("_assign_cpu" + suffix) for suffix in EXTENSION_SUFFIXES]
    built = next((name for name in names if name.exists()), None)
    if built is None:
        return (
            None,
            "the compiled core was not built; install a C++ compiler (g++ or clang++) and reinstall spintok",
        )
    try:
        library = ctypes.CDLL(str(built))
        abi = library.spintok_assign_abi()
    except (OSError, AttributeError) as error:
        return None, f"the compiled core does not load ({error}); reinstall spintok"
    if abi != ABI:
        return None, f"the compiled core is of another version ({abi}, not {ABI}); reinstall spintok"
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.spintok_assign.argtypes = [
        pointer,
        size,
        size,
        pointer,
        size,
        number,
        number,
        number,
        pointer,
        pointer,
        pointer,
    ]
    return library, ""
