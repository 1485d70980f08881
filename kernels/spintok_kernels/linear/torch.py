"""Linear layers by torch, for the CPU."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["linear"]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, dtype: torch.dtype) -> Tensor:
    """See ``spintok_kernels.linear.linear``."""
    x = x.to(weight.dtype)
    if bias is not None:
        bias = bias.to(x.dtype)
    if x.ndim == 2:
        out = F.linear(x, weight, bias)
    else:
        out = x @ weight.mT if bias is None else torch.baddbmm(bias[:, None], x, weight.mT)
    return (F.gelu(out) if gelu else out).to(dtype)
