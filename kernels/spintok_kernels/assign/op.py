"""Codebook assignment: the best codeword of every row, without storing the (N, K) scores.

A codebook is prepared once (`prepare`) and used for any number of calls. `assign` also takes plain codebooks, which it
prepares at every call.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args, overload

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from spintok_kernels.assign import cpu
from spintok_kernels.assign import torch as torch_assign
from spintok_kernels.native import LEVELS

__all__ = ["Assignment", "Metric", "PreparedCodebook", "assign", "prepare"]

Metric = Literal["dot", "l2"]


class Assignment(NamedTuple):
    """ids int32, scores float32, margins float32; each (N,), or (C, N) for C codebooks."""

    ids: Tensor
    scores: Tensor
    margins: Tensor


@dataclass(frozen=True, eq=False)
class PreparedCodebook:
    """A codebook in the layout of the implementation that will read it; the result of `prepare`.

    It is a snapshot: later changes of the codebook do not affect it.
    """

    metric: Metric
    layout: str
    """The implementation: "avx512", "avx2", "portable" and "torch" on the CPU, "triton" on CUDA."""
    tensors: list[Tensor]
    """The codebook (K, D), followed by tensors that only the implementation reads."""

    @property
    def codebook(self) -> Tensor:
        """(K, D) float32."""
        return self.tensors[0]

    @cached_property
    def native(self) -> Callable[[Tensor, bool], cpu.Found] | None:
        """The compiled CPU core on this codebook, if it is in its layout."""
        return cpu.on(self.tensors, self.metric, self.layout) if self.layout in LEVELS else None

    def __reduce__(self) -> tuple[Any, ...]:
        # Without `native`, which holds pointers.
        return PreparedCodebook, (self.metric, self.layout, self.tensors)


Codebook = Tensor | PreparedCodebook


def prepare(codebook: Tensor, metric: Metric = "dot") -> PreparedCodebook:
    """Prepare a codebook for `assign`.

    Args:
        codebook: (K, D) float32, contiguous, on the CPU or a CUDA device.
        metric: "dot" for the largest inner product, "l2" for the smallest distance.

    Raises:
        ValueError: the shape, dtype, device or layout is wrong, or a codeword is not finite. On a CUDA device that
            last check would wait for the device: there all ids of such a codebook are -1.
    """
    if metric not in get_args(Metric):
        raise ValueError(f"metric: {metric!r} is not one of {', '.join(get_args(Metric))}")
    _check("codebook", codebook)
    return _prepare(codebook, metric)


@overload
def assign(
    z: Tensor,
    codebooks: Codebook | Sequence[Codebook],
    *,
    metric: Metric | None = ...,
    return_scores: Literal[False] = ...,
) -> Tensor: ...


@overload
def assign(
    z: Tensor,
    codebooks: Codebook | Sequence[Codebook],
    *,
    metric: Metric | None = ...,
    return_scores: Literal[True],
) -> Assignment: ...


def assign(
    z: Tensor,
    codebooks: Codebook | Sequence[Codebook],
    *,
    metric: Metric | None = None,
    return_scores: bool = False,
) -> Tensor | Assignment:
    """Return the id of the codeword with the largest score for every row of z.

    The ids are exact: the argmax of the float32 inputs with float64 sums in the order of D, the lowest index of equal
    scores, on every device.

    Args:
        z: (N, D) float32, contiguous, on the CPU or a CUDA device. N may be 0.
        codebooks: one codebook, for ids (N,), or a sequence of C codebooks, for ids (C, N). Each is prepared, or (K, D)
            float32 on the device of z. K may differ between them.
        metric: "dot" for the largest inner product (the default), "l2" for the smallest distance. A prepared codebook
            has its own.
        return_scores: also return the winner's score (inner product, or negative squared distance) and its margin over
            the best other codeword, which is inf if K = 1. On the CPU the error of a margin is the rounding of a
            float32 sum of D products, or that of a float64 sum if the margin is small; on CUDA it is that of float64.

    Returns:
        ids int32, -1 for a row with NaN or infinities (its score and margin are NaN); with `return_scores` an
        `Assignment`. Nothing is differentiable.

    Raises:
        ValueError: an argument's shape, dtype, device or layout is wrong, or a codeword is not finite (see `prepare`).
        RuntimeError: the implementation for this device cannot run.
    """
    if isinstance(codebooks, PreparedCodebook):
        # The common case of streaming, kept short: its cost is that of a matrix-vector product.
        if (native := _without_torch(z, codebooks, metric)) is not None:
            return Assignment(*_with_details(*native(z, True))) if return_scores else native(z, False)[0]
        _check_rows(z, codebooks, metric)
        if not return_scores:
            return _assign_op(_detached(z), codebooks)
        return Assignment(*_assign_scores_op(_detached(z), codebooks))
    _check("z", z)
    one = isinstance(codebooks, Tensor)
    books = _prepared([codebooks] if isinstance(codebooks, Tensor) else list(codebooks), metric)
    for book in books:
        _check_rows(z, book, metric)
    z = _detached(z)
    if not return_scores:
        ids = [_assign_op(z, book) for book in books]
        return ids[0] if one else torch.stack(ids)
    parts = [_assign_scores_op(z, book) for book in books]
    return Assignment(*parts[0]) if one else Assignment(*(torch.stack(part) for part in zip(*parts, strict=True)))


def _prepared(books: list[Codebook], metric: Metric | None) -> list[PreparedCodebook]:
    if metric is not None and metric not in get_args(Metric):
        raise ValueError(f"metric: {metric!r} is not one of {', '.join(get_args(Metric))}")
    if not books:
        raise ValueError("codebooks: the sequence is empty")
    prepared = []
    for i, book in enumerate(books):
        if not isinstance(book, PreparedCodebook):
            _check(f"codebooks[{i}]" if len(books) > 1 else "codebooks", book)
            book = _prepare(book, metric or "dot")
        prepared.append(book)
    return prepared


def _check(name: str, x: Tensor) -> None:
    """Require a matrix of float32; a codebook also needs a row."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name}: a tensor is needed, not {type(x).__name__}")
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"{name}: two dimensions are needed, (rows, D), D >= 1; its shape is {tuple(x.shape)}")
    if x.dtype is not torch.float32:
        raise ValueError(f"{name}: float32 is needed, not {str(x.dtype).removeprefix('torch.')}; call .float()")
    if not x.is_contiguous():
        raise ValueError(f"{name}: is not contiguous; call .contiguous()")
    if not x.is_cpu and not x.is_cuda:
        raise ValueError(f"{name}: no implementation for device {x.device.type}; move it to the CPU")
    if name != "z" and len(x) == 0:
        raise ValueError(f"{name}: no codewords")


def _check_rows(z: Tensor, book: PreparedCodebook, metric: str | None) -> None:
    _check("z", z)
    codebook = book.tensors[0]
    if z.device != codebook.device:
        raise ValueError(f"codebooks: is on {codebook.device}, z on {z.device}")
    if z.shape[1] != codebook.shape[1]:
        raise ValueError(f"codebooks: has D = {codebook.shape[1]}, z has {z.shape[1]}")
    if metric is not None and metric != book.metric:
        raise ValueError(f"metric: {metric!r}, but the codebook was prepared for {book.metric!r}")


def _detached(x: Tensor) -> Tensor:
    return x.detach() if x.requires_grad else x


def _prepare(codebook: Tensor, metric: Metric) -> PreparedCodebook:
    layout = "triton" if codebook.is_cuda else _cpu_layout()
    return PreparedCodebook(metric, layout, torch.ops.spintok.prepare_codebook(_detached(codebook), metric, layout))


def _cpu_layout() -> str:
    layout, _ = cpu.ASSIGN.choose()
    if layout == "torch":
        cpu.ASSIGN.warn_if_missing()
    return layout


# torch.compiler.assume_constant_result does the same, but it imports Dynamo and with it Triton.
_cpu_layout._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _without_torch(z: Tensor, book: PreparedCodebook, metric: str | None) -> Callable[[Tensor, bool], cpu.Found] | None:
    """The compiled core for arguments that need no other checks, unless something wants to see the call as an op.

    Torch's way to an op takes 10 microseconds.
    """
    if (
        torch.compiler.is_compiling()
        or type(z) is not Tensor
        or z.dtype is not torch.float32
        or not z.is_cpu
        or z.ndim != 2
        or z.shape[1] != book.tensors[0].shape[1]
        or not z.is_contiguous()
        or (metric is not None and metric != book.metric)
        or is_in_torch_dispatch_mode()
    ):
        return None
    return book.native


def _assign_op(z: Tensor, book: PreparedCodebook) -> Tensor:
    ids: Tensor = torch.ops.spintok.assign(z, book.tensors, book.metric, book.layout)
    return ids


def _assign_scores_op(z: Tensor, book: PreparedCodebook) -> tuple[Tensor, Tensor, Tensor]:
    result: tuple[Tensor, Tensor, Tensor] = torch.ops.spintok.assign_scores(z, book.tensors, book.metric, book.layout)
    return result


def _with_details(ids: Tensor, scores: Tensor | None, margins: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    assert scores is not None
    assert margins is not None
    return ids, scores, margins


torch.library.define("spintok::prepare_codebook", "(Tensor codebook, str metric, str layout) -> Tensor[]")
torch.library.define("spintok::assign", "(Tensor z, Tensor[] codebook, str metric, str layout) -> Tensor")
torch.library.define(
    "spintok::assign_scores", "(Tensor z, Tensor[] codebook, str metric, str layout) -> (Tensor, Tensor, Tensor)"
)


@torch.library.register_fake("spintok::prepare_codebook")  # type: ignore[untyped-decorator]
def _(codebook: Tensor, metric: str, layout: str) -> list[Tensor]:
    if layout == "triton":
        from spintok_kernels.assign import triton as kernels

        return kernels.empty_codebook(codebook, metric)
    if layout == "torch":
        return torch_assign.empty_codebook(codebook)
    return cpu.empty_codebook(codebook, layout)


@torch.library.impl("spintok::prepare_codebook", "cpu")
def _(codebook: Tensor, metric: str, layout: str) -> list[Tensor]:
    if layout == "torch":
        return torch_assign.prepare(codebook, metric)
    return cpu.prepare(codebook, metric, layout)


@torch.library.impl("spintok::prepare_codebook", "cuda")
def _(codebook: Tensor, metric: str, layout: str) -> list[Tensor]:
    # Imported only for CUDA tensors: a machine without a GPU needs no Triton.
    from spintok_kernels.assign import triton as kernels

    return kernels.prepare(codebook, metric)


def _cpu_assign(z: Tensor, codebook: Sequence[Tensor], metric: str, layout: str, details: bool) -> cpu.Found:
    if layout == "torch":
        return torch_assign.assign(z, codebook, metric, details)
    return cpu.assign(z, codebook, metric, layout, details)


@torch.library.register_fake("spintok::assign")  # type: ignore[untyped-decorator]
def _(z: Tensor, codebook: Sequence[Tensor], metric: str, layout: str) -> Tensor:
    return z.new_empty(z.shape[0], dtype=torch.int32)


@torch.library.impl("spintok::assign", "cpu")
def _(z: Tensor, codebook: Sequence[Tensor], metric: str, layout: str) -> Tensor:
    return _cpu_assign(z, codebook, metric, layout, False)[0]


@torch.library.impl("spintok::assign", "cuda")
def _(z: Tensor, codebook: Sequence[Tensor], metric: str, layout: str) -> Tensor:
    from spintok_kernels.assign import triton as kernels

    return kernels.assign(z, codebook, metric, False)[0]


@torch.library.register_fake("spintok::assign_scores")  # type: ignore[untyped-decorator]
def _(z: Tensor, codebook: Sequence[Tensor], metric: str, layout: str) -> tuple[Tensor, Tensor, Tensor]:
    return z.new_empty(z.shape[0], dtype=torch.int32), z.new_empty(z.shape[0]), z.new_empty(z.shape[0])


@torch.library.impl("spintok::assign_scores", "cpu")
def _(z: Tensor, codebook: Sequence[Tensor], metric: str, layout: str) -> tuple[Tensor, Tensor, Tensor]:
    return _with_details(*_cpu_assign(z, codebook, metric, layout, True))


@torch.library.impl("spintok::assign_scores", "cuda")
def _(z: Tensor, codebook: Sequence[Tensor], metric: str, layout: str) -> tuple[Tensor, Tensor, Tensor]:
    from spintok_kernels.assign import triton as kernels

    return _with_details(*kernels.assign(z, codebook, metric, True))
