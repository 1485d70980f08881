"""Context managers for providers: a compiled core, the precision of float32 products in torch."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from spintok_kernels.native import Core, NativeLibrary

__all__ = ["core", "matmul_precision", "runs_here"]


@contextmanager
def core(library: NativeLibrary, name: Core) -> Iterator[None]:
    """Force one core of the library."""
    before = os.environ.get(library.variable)
    os.environ[library.variable] = name
    try:
        yield
    finally:
        os.environ.pop(library.variable)
        if before is not None:
            os.environ[library.variable] = before


def runs_here(library: NativeLibrary, name: Core) -> bool:
    """Return whether this machine can run a core."""
    with core(library, name):
        try:
            library.choose()
        except RuntimeError:
            return False
    return True


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Set the precision of float32 matrix products in torch: "highest", or "high" for TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
