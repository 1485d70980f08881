"""Compiled kernels for speech tokens: codebook assignment, Sinkhorn smoothing, swapped prediction, runs."""
