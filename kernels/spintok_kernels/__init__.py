"""Compiled kernels for speech tokens: codebook assignment, Sinkhorn smoothing, swapped prediction, runs.

Those of speaker perturbation are in `perturb_native`; `spintok.augment` is their front.
"""

from spintok_kernels.assign import Assignment, assign
from spintok_kernels.backends import Backend, backends
from spintok_kernels.loss import SwappedPrediction, swapped_prediction_loss
from spintok_kernels.runs import Runs, runs
from spintok_kernels.sinkhorn import Potentials, sinkhorn

__all__ = [
    "Assignment",
    "Backend",
    "Potentials",
    "Runs",
    "SwappedPrediction",
    "assign",
    "backends",
    "runs",
    "sinkhorn",
    "swapped_prediction_loss",
]
