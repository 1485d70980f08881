"""Report which implementation of each operation runs on each device of this machine, and why."""

import importlib.util
from dataclasses import dataclass

import torch

from spintok_kernels.assign.cpu import ASSIGN
from spintok_kernels.perturb.cpu import PERTURB
from spintok_kernels.steps import STEPS
from spintok_kernels.swapped_prediction.cpu import LOSS

__all__ = ["Backend", "backends"]


@dataclass(frozen=True)
class Backend:
    """One operation on one device: the implementation that runs there ("none" if none can) and the reason."""

    op: str
    device: str
    implementation: str
    reason: str


def backends() -> tuple[Backend, ...]:
    """Return the implementation of every operation on the CPU and on CUDA devices."""
    cpu = {
        "assign": ASSIGN.choose(),
        "attend": ("torch", "its kernel is for GPUs only"),
        "linear": ("torch", "its kernel is for GPUs only"),
        "perturb": PERTURB.choose(),
        "steps": STEPS.choose(),
        "swapped_prediction_loss": LOSS.choose(),
    }
    return tuple(
        backend for op, core in cpu.items() for backend in (Backend(op, "cpu", *core), Backend(op, "cuda", *_cuda(op)))
    )


def _cuda(op: str) -> tuple[str, str]:
    if not torch.cuda.is_available():
        return "none", "torch sees no CUDA device"
    if op in ("perturb", "steps"):
        return "torch", "its compiled kernels are for the CPU only"
    if importlib.util.find_spec("triton") is None:
        return "none", "Triton is not installed: pip install 'spintok[gpu]'"
    return "triton", f"compiled for {torch.cuda.get_device_name()} at first use"
