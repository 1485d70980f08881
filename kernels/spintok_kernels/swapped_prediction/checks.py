"""Argument checks: one-line ValueErrors that name the argument."""

import math

import torch
from torch import Tensor

__all__ = ["check_iterations", "check_matrix", "check_positive", "check_same_kind"]


def check_matrix(name: str, x: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    """Require a non-empty, contiguous matrix of one of `dtypes` on the CPU or a CUDA device."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(x).__name__}")
    if x.ndim != 2:
        raise ValueError(f"{name} must have two dimensions, got shape {tuple(x.shape)}")
    if x.shape[0] == 0 or x.shape[1] == 0:
        raise ValueError(f"{name} is empty: shape {tuple(x.shape)}")
    if x.dtype not in dtypes:
        allowed = " or ".join(str(d).removeprefix("torch.") for d in dtypes)
        raise ValueError(f"{name} must be {allowed}, got {x.dtype}; cast it first")
    if x.device.type not in ("cpu", "cuda"):
        raise ValueError(f"{name} is on {x.device}: only CPU and CUDA tensors are supported")
    if not x.is_contiguous():
        raise ValueError(f"{name} is not contiguous: pass {name}.contiguous()")


def check_same_kind(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    """Require two tensors to have the same dtype and device."""
    if x.dtype != other.dtype:
        raise ValueError(f"{name} is {x.dtype} but {other_name} is {other.dtype}")
    if x.device != other.device:
        raise ValueError(f"{name} is on {x.device} but {other_name} is on {other.device}")


def check_positive(**values: float) -> None:
    """Require finite numbers above 0."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be a finite number above 0, got {value}")


def check_iterations(iterations: int) -> None:
    """Require at least one Sinkhorn iteration."""
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
