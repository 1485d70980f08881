"""Compiled kernels for speech tokens: codebook assignment, Sinkhorn smoothing, swapped prediction, runs."""

from spintok_kernels.assign import Assignment, assign
from spintok_kernels.backends import Backend, backends
from spintok_kernels.runs import Runs, runs

__all__ = ["Assignment", "Backend", "Runs", "assign", "backends", "runs"]
