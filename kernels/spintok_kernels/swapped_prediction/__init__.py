"""The swapped-prediction loss of Spin with all gradients, on the CPU and on CUDA devices."""

# Importing the submodule `torch` binds that name here: use no other `torch` in this file.
from spintok_kernels.swapped_prediction.op import MEMORY_BUDGET, SwappedPrediction, swapped_prediction_loss

__all__ = ["MEMORY_BUDGET", "SwappedPrediction", "swapped_prediction_loss"]
