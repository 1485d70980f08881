"""The compiled CPU core of `assign`."""

import ctypes

import torch
from torch import Tensor

from spintok_kernels.native import LEVELS, Core, NativeLibrary

__all__ = ["ASSIGN", "assign_native"]


def _declare(library: ctypes.CDLL) -> None:
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    library.spintok_assign.argtypes = [pointer, size, size, pointer, size, *[number] * 3, *[pointer] * 3]


# The matrix product of torch is faster than the portable core.
ASSIGN = NativeLibrary("assign", abi=1, declare=_declare, portable=False)


def assign_native(z: Tensor, codebook: Tensor, metric: str, core: Core, details: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids (N,) and, with `details`, scores and margins (N,), else empty tensors. Arguments are not checked."""
    ids = torch.empty(len(z), dtype=torch.int32)
    scores, margins = (torch.empty(len(z) if details else 0) for _ in range(2))
    status = ASSIGN.functions().spintok_assign(
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
            raise MemoryError("assign: out of memory for the packed codebook")
        case _:
            raise RuntimeError(f"assign: this CPU does not support the {core} core")
