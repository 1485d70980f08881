"""The compiled CPU core of `assign`."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from spintok_kernels.native import LEVELS, NativeLibrary

__all__ = ["ASSIGN", "assign", "empty_codebook", "prepare"]


def _declare(library: ctypes.CDLL) -> None:
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.spintok_assign_panel.argtypes = [number]
    library.spintok_assign_pack.argtypes = [pointer, size, size, *[number] * 3, *[pointer] * 4]
    book: list[type] = [pointer, size, number, *[pointer] * 4]
    library.spintok_assign.argtypes = [pointer, size, size, *book, number, number, *[pointer] * 3]


# The matrix product of torch is faster than the portable core.
ASSIGN = NativeLibrary("assign", abi=2, declare=_declare, portable=False)


def empty_codebook(codebook: Tensor, layout: str) -> list[Tensor]:
    """Return uninitialised tensors for `prepare`: codebook, panels, biases, mean and bounds (see assign.cpp)."""
    k, depth = codebook.shape
    width = ASSIGN.functions().spintok_assign_panel(_isa(layout))
    panels = (k + width - 1) // width
    return [
        codebook.new_empty(k, depth),
        codebook.new_empty(panels, depth, width),
        codebook.new_empty(panels, width),
        codebook.new_empty(depth),
        codebook.new_empty(4, dtype=torch.float64),
    ]


def prepare(codebook: Tensor, metric: str, layout: str) -> list[Tensor]:
    """Pack a codebook. Arguments are not checked; ValueError if a codeword is not finite."""
    prepared = empty_codebook(codebook, layout)
    prepared[0].copy_(codebook)
    status = ASSIGN.functions().spintok_assign_pack(
        prepared[0].data_ptr(),
        *codebook.shape,
        int(metric == "l2"),
        _isa(layout),
        torch.get_num_threads(),
        *(x.data_ptr() for x in prepared[1:]),
    )
    _raise(status, layout)
    return prepared


def assign(
    z: Tensor, prepared: Sequence[Tensor], metric: str, layout: str, details: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return ids (N,) and, with `details`, scores and margins (N,). Arguments are not checked."""
    codebook, panels, bias, mean, bounds = prepared
    n, depth = z.shape
    ids = torch.empty(n, dtype=torch.int32)
    scores = torch.empty(n) if details else None
    margins = torch.empty(n) if details else None
    status = ASSIGN.functions().spintok_assign(
        z.data_ptr(),
        n,
        depth,
        codebook.data_ptr(),
        codebook.shape[0],
        metric == "l2",
        panels.data_ptr(),
        bias.data_ptr(),
        mean.data_ptr(),
        bounds.data_ptr(),
        _isa(layout),
        torch.get_num_threads(),
        ids.data_ptr(),
        None if scores is None else scores.data_ptr(),
        None if margins is None else margins.data_ptr(),
    )
    if status:
        _raise(status, layout)
    return ids, scores, margins


_ISA = {name: i for i, name in enumerate(LEVELS)}


def _isa(layout: str) -> int:
    return _ISA[layout]  # type: ignore[index]


def _raise(status: int, layout: str) -> None:
    match status:
        case 0:
            return
        case 1:
            raise ValueError("codebook: a codeword is not finite")
        case 2:
            raise MemoryError("assign: out of memory")
        case _:
            raise RuntimeError(f"assign: this CPU does not support the {layout} core")
