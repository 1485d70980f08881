"""Codebook assignment: the best codeword of every row, without ever storing the (N, K) scores."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args, overload

import torch
from torch import Tensor

from spintok_kernels.assign.cpu import ASSIGN, assign_native
from spintok_kernels.assign.torch import assign_torch

__all__ = ["Assignment", "Metric", "Precision", "assign"]

Metric = Literal["dot", "l2"]
Precision = Literal["exact", "fp16"]


class Assignment(NamedTuple):
    """ids int32, scores float32, margins float32; each (N,), or (C, N) for C codebooks."""

    ids: Tensor
    scores: Tensor
    margins: Tensor


@overload
def assign(
    z: Tensor,
    codebooks: Tensor | Sequence[Tensor],
    *,
    metric: Metric = ...,
    precision: Precision = ...,
    return_scores: Literal[False] = ...,
) -> Tensor: ...


@overload
def assign(
    z: Tensor,
    codebooks: Tensor | Sequence[Tensor],
    *,
    metric: Metric = ...,
    precision: Precision = ...,
    return_scores: Literal[True],
) -> Assignment: ...


def assign(
    z: Tensor,
    codebooks: Tensor | Sequence[Tensor],
    *,
    metric: Metric = "dot",
    precision: Precision = "exact",
    return_scores: bool = False,
) -> Tensor | Assignment:
    """The id of the codeword with the largest score for every row of z.

    Args:
        z: (N, D) float32, contiguous, on the CPU or a CUDA device. N may be 0.
        codebooks: one codebook (K, D) float32 on z's device, for ids (N,); or a sequence of C codebooks
            (K_c, D), for ids (C, N). K may differ between them.
        metric: "dot" for the largest inner product, "l2" for the smallest distance.
        precision: "exact" is the argmax of the float32 inputs with float64 sums in the order of D, the
            lowest index on ties: no id differs from that, on any device. "fp16" rounds both sides to float16
            first (each row of z, and the codebook, scaled by a power of two; for "l2" less the codebook's
            mean), which a GPU multiplies several times faster: near ties may go the other way. On a CPU it
            computes the same rounding and is no faster; a small problem on a GPU comes out exact.
        return_scores: also the winner's score (inner product, or negative squared distance) and its margin
            over the best other codeword, inf when K = 1. A margin is off by the rounding of a float32 sum of
            D products; of near ties, by that of a float64 one.

    Returns:
        ids int32, -1 for a row with NaN or infinities (score and margin NaN); with `return_scores` an
        `Assignment`. Nothing is differentiable.

    Raises:
        ValueError: an argument's shape, dtype, device or layout is wrong, or a codeword is not finite. On a
            CUDA device that last check would wait for the device: there all ids of such a codebook are -1.
        RuntimeError: the kernel for this device cannot run.
    """
    books = [codebooks] if isinstance(codebooks, Tensor) else list(codebooks)
    _check(z, books, metric, precision)
    ids, scores, margins = torch.ops.spintok.assign(
        z.detach(), [book.detach() for book in books], metric, precision, return_scores
    )
    if isinstance(codebooks, Tensor):
        ids, scores, margins = ids[0], scores[0], margins[0]
    return Assignment(ids, scores, margins) if return_scores else ids


def _check(z: Tensor, books: list[Tensor], metric: str, precision: str) -> None:
    if metric not in get_args(Metric):
        raise ValueError(f"metric: {metric!r} is not one of {', '.join(get_args(Metric))}")
    if precision not in get_args(Precision):
        raise ValueError(f"precision: {precision!r} is not one of {', '.join(get_args(Precision))}")
    if not books:
        raise ValueError("codebooks: the sequence is empty")
    for name, x in [
        ("z", z),
        *((f"codebooks[{i}]" if len(books) > 1 else "codebooks", x) for i, x in enumerate(books)),
    ]:
        if not isinstance(x, Tensor):
            raise ValueError(f"{name}: a tensor is needed, not {type(x).__name__}")
        if x.ndim != 2 or x.shape[1] == 0:
            raise ValueError(f"{name}: two dimensions are needed, (rows, D), D >= 1; its shape is {tuple(x.shape)}")
        if x.dtype != torch.float32:
            raise ValueError(f"{name}: float32 is needed, not {str(x.dtype).removeprefix('torch.')}; call .float()")
        if x.device != z.device:
            raise ValueError(f"{name}: is on {x.device}, z on {z.device}")
        if not x.is_contiguous():
            raise ValueError(f"{name}: is not contiguous; call .contiguous()")
        if x.shape[1] != z.shape[1]:
            raise ValueError(f"{name}: has D = {x.shape[1]}, z has {z.shape[1]}")
        if x is not z and len(x) == 0:
            raise ValueError(f"{name}: no codewords")
    if z.device.type not in ("cpu", "cuda"):
        raise ValueError(f"z: no kernel for device {z.device.type}; move z and the codebooks to the CPU")


torch.library.define(
    "spintok::assign",
    "(Tensor z, Tensor[] codebooks, str metric, str precision, bool details) -> (Tensor, Tensor, Tensor)",
)


@torch.library.register_fake("spintok::assign")  # type: ignore[untyped-decorator]
def _assign_fake(
    z: Tensor, codebooks: Sequence[Tensor], metric: str, precision: str, details: bool
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (len(codebooks), z.shape[0])
    extra = shape if details else (len(codebooks), 0)
    return z.new_empty(shape, dtype=torch.int32), z.new_empty(extra), z.new_empty(extra)


@torch.library.impl("spintok::assign", "cpu")
def _assign_cpu(
    z: Tensor, codebooks: Sequence[Tensor], metric: str, precision: str, details: bool
) -> tuple[Tensor, Tensor, Tensor]:
    core, _ = ASSIGN.choose()
    if core == "torch":
        ASSIGN.warn_if_missing()
    results = []
    for codebook in codebooks:
        rows = z
        if precision == "fp16":
            rows, codebook = _rounded(z, codebook, metric)
        if core == "torch":
            if not bool(codebook.isfinite().all()):
                raise ValueError("codebooks: a codeword is not finite")
            results.append(assign_torch(rows, codebook, metric, details))
        else:
            results.append(assign_native(rows, codebook, metric, core, details))
    ids, scores, margins = (torch.stack(parts) for parts in zip(*results, strict=True))
    return ids, scores, margins


@torch.library.impl("spintok::assign", "cuda")
def _assign_cuda(
    z: Tensor, codebooks: Sequence[Tensor], metric: str, precision: str, details: bool
) -> tuple[Tensor, Tensor, Tensor]:
    # Imported only for CUDA tensors: a machine without a GPU needs no Triton.
    from spintok_kernels.assign import triton as kernels

    return kernels.assign(z, codebooks, metric, precision, details)


def _rounded(z: Tensor, codebook: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    """Both sides rounded as the GPU's float16 operands are, in float32."""
    if metric == "l2":
        mean = codebook.double().mean(dim=0).float()
        z, codebook = z - mean, codebook - mean
    scale = _power_of_two(z.abs().amax(dim=1, keepdim=True))
    half = (z * scale).half().float() / scale
    scale = _power_of_two(codebook.abs().max())
    return half, (codebook * scale).half().float() / scale


def _power_of_two(largest: Tensor) -> Tensor:
    """The power of two taking `largest` into [4096, 8192): far from float16's overflow and its subnormals.

    1 for 0 and for what is not finite; never above 2^100, so that scaling back is exact.
    """
    exponent = 13 - torch.frexp(largest).exponent
    usable = largest.isfinite() & (largest > 0)
    return torch.ldexp(torch.ones_like(largest), exponent.where(usable, 0).clamp(-100, 100))
