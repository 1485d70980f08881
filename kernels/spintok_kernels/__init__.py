"""Compiled kernels for speech tokens: codebook assignment, Sinkhorn smoothing, swapped prediction, runs."""

from .loss import SwappedPrediction, swapped_prediction_loss
from .sinkhorn import Potentials, sinkhorn

__all__ = ["Potentials", "SwappedPrediction", "sinkhorn", "swapped_prediction_loss"]
