"""Codebook assignment: the exact id of the best codeword of every row."""

# Importing the submodule `torch` binds that name here: use no other `torch` in this file.
from spintok_kernels.assign.op import Assignment, Metric, PreparedCodebook, assign, prepare

__all__ = ["Assignment", "Metric", "PreparedCodebook", "assign", "prepare"]
