"""Which implementation of each op runs on which device of this machine, and why."""

import importlib.util
from dataclasses import dataclass

import torch

from spintok_kernels.assign_native import ASSIGN
from spintok_kernels.loss_native import LOSS
from spintok_kernels.perturb_native import PERTURB

__all__ = ["Backend", "backends"]


@dataclass(frozen=True)
class Backend:
    """One op on one device: the implementation that runs ("none" if the op raises there), and the reason."""

    op: str
    device: str
    implementation: str
    reason: str


def backends() -> tuple[Backend, ...]:
    """Every op of this package on the CPU and on CUDA devices, as it would run now."""
    cpu = {
        "assign": ASSIGN.choose(),
        "perturb": PERTURB.choose(),
        "runs": ("torch", "a few passes over small integers"),
        "sinkhorn": LOSS.choose(),
        "swapped_prediction_loss": LOSS.choose(),
    }
    return tuple(
        backend for op, core in cpu.items() for backend in (Backend(op, "cpu", *core), Backend(op, "cuda", *_cuda(op)))
    )


def _cuda(op: str) -> tuple[str, str]:
    if not torch.cuda.is_available():
        return "none", "torch sees no CUDA device"
    if op == "perturb":
        return "torch", "there are compiled passes for the CPU only"
    if importlib.util.find_spec("triton") is None:
        return "none", "Triton is not installed: pip install 'spintok[gpu]'"
    return "triton", f"compiled for {torch.cuda.get_device_name()} at first use"
