"""De-duplication: runs of equal codes and their durations, on the device and without waiting for it."""

import importlib
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Runs", "runs"]

CODES = (torch.int16, torch.int32, torch.int64)
LENGTHS = (torch.int32, torch.int64)


class Runs(NamedTuple):
    """codes (B, T) in the input's dtype, durations (B, T) int32, counts (B,) int32.

    Row b holds counts[b] runs; behind them its codes are -1 and its durations 0.
    """

    codes: Tensor
    durations: Tensor
    counts: Tensor


def runs(codes: Tensor, lengths: Tensor) -> Runs:
    """The maximal stretches of equal codes in each row.

    Args:
        codes: (B, T) int16, int32 or int64, contiguous. Any value is a code.
        lengths: (B,) int32 or int64, contiguous: the frames of each row, from 0 to T.

    Returns:
        `Runs`, on the same device. durations sum to lengths.

    Raises:
        ValueError: a shape, dtype, device or layout is wrong, or a length is outside [0, T]. On a CUDA
            device that last check would wait for the device: there such a row has count -1 and no runs.
        RuntimeError: the kernel for this device cannot run.
    """
    for name, x, ndim, dtypes in (("codes", codes, 2, CODES), ("lengths", lengths, 1, LENGTHS)):
        if not isinstance(x, Tensor):
            raise ValueError(f"{name}: a tensor is needed, not {type(x).__name__}")
        if x.ndim != ndim:
            raise ValueError(f"{name}: {ndim} dimension(s) needed; its shape is {tuple(x.shape)}")
        if x.dtype not in dtypes:
            raise ValueError(f"{name}: integers are needed ({', '.join(map(str, dtypes))}), not {x.dtype}")
        if x.device != codes.device:
            raise ValueError(f"{name}: is on {x.device}, codes on {codes.device}")
        if not x.is_contiguous():
            raise ValueError(f"{name}: is not contiguous; call .contiguous()")
    if lengths.shape[0] != codes.shape[0]:
        raise ValueError(f"lengths: {lengths.shape[0]} of them for {codes.shape[0]} rows of codes")
    if codes.device.type not in ("cpu", "cuda"):
        raise ValueError(f"codes: no kernel for device {codes.device.type}; move them to the CPU")
    return Runs(*torch.ops.spintok.runs(codes, lengths))


torch.library.define("spintok::runs", "(Tensor codes, Tensor lengths) -> (Tensor, Tensor, Tensor)")


@torch.library.register_fake("spintok::runs")  # type: ignore[untyped-decorator]
def _runs_fake(codes: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    durations = torch.empty_like(codes, dtype=torch.int32)
    return torch.empty_like(codes), durations, torch.empty_like(lengths, dtype=torch.int32)


@torch.library.impl("spintok::runs", "cpu")
def _runs_cpu(codes: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, frames = codes.shape
    if bool(((lengths < 0) | (lengths > frames)).any()):
        raise ValueError(f"lengths: not all are between 0 and T = {frames}")
    valid = torch.arange(frames) < lengths[:, None]
    starts = valid.clone()
    starts[:, 1:] &= codes[:, 1:] != codes[:, :-1]
    # The run of each frame. What belongs to none goes to a column that is cut off again.
    run = (starts.cumsum(1) - 1).where(valid, frames)
    durations = torch.zeros(rows, frames + 1, dtype=torch.int32).scatter_add_(1, run, valid.int())
    run_codes = torch.full((rows, frames + 1), -1, dtype=codes.dtype).scatter_(1, run, codes)
    run_codes[:, frames] = -1
    return (
        run_codes[:, :frames].contiguous(),
        durations[:, :frames].contiguous(),
        starts.sum(1, dtype=torch.int32),
    )


@torch.library.impl("spintok::runs", "cuda")
def _runs_cuda(codes: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # Not at the top: a machine without a GPU needs no Triton.
    triton_runs = importlib.import_module("spintok_kernels.runs_triton")
    result: tuple[Tensor, Tensor, Tensor] = triton_runs.runs(codes, lengths)
    return result
