"""Products of the encoder and the codebooks, the same for a frame alone and in any batch.

On a CPU utterances are encoded one at a time, so torch's products always see the same shapes. On a GPU they share
padded batches, and cuBLAS and cuDNN choose their kernels, and with them the order of sums, by the shape of the batch.
There inference takes ``spintok_kernels.linear`` and ``spintok_kernels.attention``, whose order is fixed.
"""

import torch
from spintok_kernels.linear import linear as fixed_linear
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["fixed_order", "linear"]

_DEVICES = {"cuda"}
_HALVES = (torch.float16, torch.bfloat16)


def fixed_order(x: Tensor) -> bool:
    """Whether products of x are to be computed in a fixed order: on a GPU, but not for gradients or under autocast."""
    inference = not torch.is_grad_enabled() and not torch.is_autocast_enabled(x.device.type)
    return inference and x.device.type in _DEVICES and x.dtype is not torch.float64


def linear(layer: nn.Linear, x: Tensor, *, gelu: bool = False, dtype: torch.dtype | None = None) -> Tensor:
    """``layer(x)`` of x (..., D), or its GELU.

    The weight may be float16 or bfloat16 and x float32, without gradients: the product is computed in the type of the
    weight, and the result has ``dtype``, by default that of x. Other combinations are torch's.
    """
    if fixed_order(x):
        rows = fixed_linear(x.flatten(0, -2), layer.weight, layer.bias, gelu=gelu, out_dtype=dtype)
        return rows.view(*x.shape[:-1], rows.shape[-1])
    out: Tensor
    if layer.weight.dtype in _HALVES:
        bias = None if layer.bias is None else layer.bias.to(layer.weight.dtype)
        out = F.linear(x.to(layer.weight.dtype), layer.weight, bias)
        return (F.gelu(out) if gelu else out).to(dtype or x.dtype)
    out = layer(x)
    if not gelu:
        return out
    return F.gelu(out) if torch.is_grad_enabled() else torch.ops.aten.gelu_(out)
