"""Compiled kernels for speech tokenizers.

Codebook assignment, the swapped-prediction loss, speaker perturbation, and linear layers, attention and steps of
streams whose results do not depend on the batch.

Each operation is a package with one file for each implementation: `torch`, `cpu` (C++) and `triton`.
"""

from spintok_kernels.assign import Assignment, PreparedCodebook, assign, prepare
from spintok_kernels.backends import Backend, backends
from spintok_kernels.swapped_prediction import SwappedPrediction, swapped_prediction_loss

__all__ = [
    "Assignment",
    "Backend",
    "PreparedCodebook",
    "SwappedPrediction",
    "assign",
    "backends",
    "prepare",
    "swapped_prediction_loss",
]
