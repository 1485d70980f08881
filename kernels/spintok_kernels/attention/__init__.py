"""Self-attention whose result does not depend on padding: the same bits alone and in any batch."""

# Importing the submodule `torch` binds that name here: use no other `torch` in this file.
from spintok_kernels.attention.op import attend

__all__ = ["attend"]
