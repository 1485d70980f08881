"""The compiled CPU core of `assign`."""

import ctypes
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from spintok_kernels.native import LEVELS, NativeLibrary, share_threads

__all__ = ["ASSIGN", "Found", "assign", "empty_codebook", "on", "prepare"]

Found = tuple[Tensor, Tensor | None, Tensor | None]
"""ids (N,), and scores and margins (N,) if asked for."""


class _Packed(ctypes.Structure):
    """`Packed` of assign.cpp."""

    _fields_ = (
        ("codebook", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("k", "d", "l2", "isa")),
        *((name, ctypes.c_void_p) for name in ("panels", "bias", "mean", "bounds")),
    )


def _declare(library: ctypes.CDLL) -> None:
    share_threads(library.spintok_assign_use)
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.spintok_assign_panel.argtypes = [number]
    library.spintok_assign_pack.argtypes = [pointer, number]
    library.spintok_assign.argtypes = [pointer, pointer, size, number, *[pointer] * 3]


# The matrix product of torch is faster than the portable core.
ASSIGN = NativeLibrary("assign", abi=4, declare=_declare, portable=False)


def empty_codebook(codebook: Tensor, layout: str) -> list[Tensor]:
    """Return uninitialised tensors for `prepare`: codebook, panels, biases, mean and bounds (see assign.cpp)."""
    k, depth = codebook.shape
    width = ASSIGN.functions().spintok_assign_panel(_ISA[layout])
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
    packed = _packed(prepared, metric, layout)
    _raise(ASSIGN.functions().spintok_assign_pack(ctypes.byref(packed), torch.get_num_threads()), layout)
    return prepared


def assign(z: Tensor, prepared: Sequence[Tensor], metric: str, layout: str, details: bool) -> Found:
    """Return ids (N,) and, with `details`, scores and margins (N,). Arguments are not checked."""
    return on(prepared, metric, layout)(z, details)


def on(prepared: Sequence[Tensor], metric: str, layout: str) -> Callable[[Tensor, bool], Found]:
    """Return `assign` for one codebook, whose pointers are collected only once: most of the cost of one row."""
    run = ASSIGN.functions().spintok_assign
    book = ctypes.byref(_packed(prepared, metric, layout))

    def assign(z: Tensor, details: bool) -> Found:
        n = z.shape[0]
        ids = torch.empty(n, dtype=torch.int32)
        scores = torch.empty(n) if details else None
        margins = torch.empty(n) if details else None
        status = run(
            book,
            z.data_ptr(),
            n,
            torch.get_num_threads(),
            ids.data_ptr(),
            None if scores is None else scores.data_ptr(),
            None if margins is None else margins.data_ptr(),
        )
        if status:
            _raise(status, layout)
        return ids, scores, margins

    # It keeps the memory that the pointers lead to.
    assign.tensors = tuple(prepared)  # type: ignore[attr-defined]
    return assign


def _packed(prepared: Sequence[Tensor], metric: str, layout: str) -> _Packed:
    codebook, *rest = (x.data_ptr() for x in prepared)
    return _Packed(codebook, *prepared[0].shape, metric == "l2", _ISA[layout], *rest)


_ISA = {str(name): i for i, name in enumerate(LEVELS)}


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
