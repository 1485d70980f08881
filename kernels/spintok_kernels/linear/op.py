"""Linear layers whose rows have the same bits alone and in any batch.

The libraries of a GPU choose another kernel, and so another order of summation, for another number of rows. Here the
tile and the order of the sum depend on the weight only. A convolution is such a layer too, on overlapping rows.
"""

import torch
from torch import Tensor

from spintok_kernels.linear import torch as torch_linear

__all__ = ["linear"]

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, gelu: bool = False, out_dtype: torch.dtype | None = None
) -> Tensor:
    """Return ``x @ weight.T + bias``, or its GELU (the exact one, with erf), row by row.

    On a GPU each row of the result has the same bits whatever M is and whichever row it is. Products are summed in
    float32: those of float32 inputs from three products in TF32 each, so that about 22 bits count.

    Args:
        x: (M, K), or (G, M, K) for G groups; float32, float16 or bfloat16. The last dimension is contiguous; rows may
            overlap.
        weight: (N, K) or (G, N, K), of the dtype of x; or float16 or bfloat16, and x is rounded as it is read.
        bias: (N,) or (G, N), or None.
        gelu: apply GELU.
        out_dtype: the dtype of the result; that of x by default.

    Returns:
        (M, N) or (G, M, N), contiguous. Nothing is differentiable.

    Raises:
        ValueError: an argument's shape, dtype or layout is wrong.
    """
    if x.dtype not in _DTYPES or weight.dtype not in _DTYPES or weight.dtype not in (x.dtype, *_DTYPES[1:]):
        raise ValueError(f"x and weight: float32, float16 or bfloat16 are needed, not {x.dtype} and {weight.dtype}")
    if x.ndim not in (2, 3) or weight.ndim != x.ndim or weight.shape[-1] != x.shape[-1] or x.shape[-1] == 0:
        raise ValueError(
            f"x, weight: (M, K), (N, K) or (G, M, K), (G, N, K); got {tuple(x.shape)}, {tuple(weight.shape)}"
        )
    if x.ndim == 3 and x.shape[0] != weight.shape[0]:
        raise ValueError(f"x has {x.shape[0]} groups, weight {weight.shape[0]}")
    if bias is not None and bias.shape != weight.shape[:-1]:
        raise ValueError(f"bias: {tuple(weight.shape[:-1])} is needed, got {tuple(bias.shape)}")
    if x.stride(-1) != 1 and x.shape[-1] > 1:
        raise ValueError("x: its last dimension is not contiguous; call .contiguous()")
    result: Tensor = torch.ops.spintok.linear(x, weight, bias, gelu, out_dtype or x.dtype)
    return result


torch.library.define(
    "spintok::linear", "(Tensor x, Tensor weight, Tensor? bias, bool gelu, ScalarType dtype) -> Tensor"
)


@torch.library.register_fake("spintok::linear")  # type: ignore[untyped-decorator]
def _(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, dtype: torch.dtype) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[-2], dtype=dtype)


@torch.library.impl("spintok::linear", "cpu")
def _(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, dtype: torch.dtype) -> Tensor:
    return torch_linear.linear(x, weight, bias, gelu, dtype)


@torch.library.impl("spintok::linear", "cuda")
def _(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, dtype: torch.dtype) -> Tensor:
    # Imported only for CUDA tensors: a machine without a GPU needs no Triton.
    from spintok_kernels.linear import triton as kernels

    return kernels.linear(x, weight, bias, gelu, dtype)
