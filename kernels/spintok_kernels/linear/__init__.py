"""Linear layers whose rows do not depend on the other rows: the same bits alone and in any batch."""

# Importing the submodule `torch` binds that name here: use no other `torch` in this file.
from spintok_kernels.linear.op import linear

__all__ = ["linear"]
