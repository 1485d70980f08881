"""Sinkhorn-Knopp by potentials: two vectors in place of the (N, K) targets.

With Q_ij = exp(s_ij / epsilon + u_j + v_i), one iteration makes every codeword's total equal,
u_j = -log sum_i exp(s_ij / epsilon + v_i), then every frame's, v_i = -log sum_j exp(s_ij / epsilon + u_j).
The factors 1/K and 1/N of SwAV's form cancel. After the first iteration v need not be stored: with S_j the
column sums of the row-normalised Q, u_j <- u_j - log S_j is the same update, and 1/K <= S_j <= N, so nothing
overflows or divides by zero at any epsilon. Ranks of a process group share the K column totals, nothing else.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from spintok_kernels._checks import check_iterations, check_matrix, check_positive, check_same_kind
from spintok_kernels._ranks import group_name, max_over_ranks, sum_over_ranks

__all__ = ["Blocks", "Passes", "Potentials", "code_potentials", "device_passes", "sinkhorn"]

# Scores of (z, codebook) held at a time by `sinkhorn`: 64 MB of float32.
BLOCK = 1 << 24

Blocks = Callable[[], Iterable[tuple[slice, Tensor]]]
"""Yields, afresh at each call, every block of rows with its scores (V, n, K); one if all are stored."""


class Passes(NamedTuple):
    """One device's passes over a block of scores (V, n, K). `scale` is 1 / epsilon, u is (V, K)."""

    column_logsumexp: Callable[[Tensor, float], Tensor]
    """(scores, scale) -> log sum_i exp(scale * s_ij), (V, K) float64."""
    column_totals: Callable[[Tensor, float, Tensor], Tensor]
    """(scores, scale, u) -> sum_i softmax_j(scale * s_ij + u_j), (V, K) float64."""
    row_logsumexp: Callable[[Tensor, float, Tensor], Tensor]
    """(scores, scale, u) -> log sum_j exp(scale * s_ij + u_j), (V, n)."""


class Potentials(NamedTuple):
    """Q_ij = exp(scores_ij / epsilon + code_j + frame_i): code (K,), frame (N,)."""

    code: Tensor
    frame: Tensor


def sinkhorn(
    scores: Tensor | None = None,
    *,
    z: Tensor | None = None,
    codebook: Tensor | None = None,
    epsilon: float = 0.02,
    iterations: int = 3,
    group: dist.ProcessGroup | None = None,
) -> Potentials:
    """Potentials of the Sinkhorn-smoothed targets of `scores`, or of `z @ codebook.T`.

    Args:
        scores: (N, K) float32; on the CPU also float64, on CUDA also float16. Any range.
        z, codebook: instead of `scores`: (N, D) and (K, D), float32 (on the CPU also float64). At most 2^24
            scores exist at a time. The rows need not have unit length.
        epsilon: entropic weight; Spin uses 0.02 on cosines.
        iterations: each ends with the frames' totals, so the rows of Q sum to 1.
        group: ranks that hold other rows of the same batch, any number each, at least one. Only per-code
            totals cross the ranks; `code` is the same on all, `frame` belongs to the local rows.

    Returns:
        float32 (float64 for float64 input) potentials with Q = exp(scores / epsilon + code + frame[:, None]).
        No gradient flows through them. A NaN or infinite score makes every element of `frame`, so of Q, NaN.
        The exponent's terms reach |scores| / epsilon: float32 leaves a relative error of 1e-7 times that.

    Raises:
        ValueError: a wrong shape, dtype, device, layout, epsilon or number of iterations.
    """
    check_positive(epsilon=epsilon)
    check_iterations(iterations)
    if scores is not None:
        if z is not None or codebook is not None:
            raise ValueError("scores excludes z and codebook: give one or the other")
        exact = torch.float64 if scores.device.type == "cpu" else torch.float16
        check_matrix("scores", scores, (torch.float32, exact))
        code, frame = _sinkhorn_op(scores.detach(), None, epsilon, iterations, group_name(group))
        return Potentials(code, frame)
    if z is None or codebook is None:
        raise ValueError("scores is missing: give scores, or z and codebook")
    check_matrix("z", z, (torch.float32, torch.float64) if z.device.type == "cpu" else (torch.float32,))
    check_matrix("codebook", codebook, (z.dtype,))
    check_same_kind("codebook", codebook, "z", z)
    if z.shape[1] != codebook.shape[1]:
        raise ValueError(f"codebook has rows of {codebook.shape[1]} numbers, those of z have {z.shape[1]}")
    code, frame = _sinkhorn_op(z.detach(), codebook.detach(), epsilon, iterations, group_name(group))
    return Potentials(code, frame)


def code_potentials(
    blocks: Blocks, passes: Passes, rows: int, *, epsilon: float, iterations: int, group: str
) -> tuple[Tensor, Tensor]:
    """The code potentials u (V, K), float64, and the number of rows of all ranks, a float64 tensor.

    `rows` is this rank's. Reads the scores `iterations` times.
    """
    scale = 1.0 / epsilon
    logsum: Tensor | None = None
    for _, scores in blocks():
        part = passes.column_logsumexp(scores, scale)
        logsum = part if logsum is None else torch.logaddexp(logsum, part)
    assert logsum is not None
    top = max_over_ranks(logsum.clone(), group)
    # The rows travel with the totals; float64 counts them exactly.
    shared = sum_over_ranks(torch.cat([torch.exp(logsum - top).flatten(), logsum.new_tensor([rows])]), group)
    u = -(top + torch.log(shared[:-1].view_as(top)))
    for _ in range(iterations - 1):
        totals = torch.zeros_like(u)
        for _, scores in blocks():
            totals += passes.column_totals(scores, scale, u)
        u = u - torch.log(sum_over_ranks(totals, group))
    return u, shared[-1]


@torch.library.custom_op("spintok::sinkhorn", mutates_args=())
def _sinkhorn_op(
    x: Tensor, codebook: Tensor | None, epsilon: float, iterations: int, group: str
) -> tuple[Tensor, Tensor]:
    passes = device_passes(x.device, x.dtype)
    n = x.shape[0]

    def blocks() -> Iterable[tuple[slice, Tensor]]:
        if codebook is None:
            yield slice(0, n), x[None]
            return
        step = max(1, BLOCK // codebook.shape[0])
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            yield rows, (x[rows] @ codebook.T)[None]

    # Autocast must not lower the precision of the scores.
    with torch.autocast(x.device.type, enabled=False):
        u, _ = code_potentials(blocks, passes, n, epsilon=epsilon, iterations=iterations, group=group)
        frame = torch.empty(n, dtype=_potential_dtype(x), device=x.device)
        for rows, scores in blocks():
            frame[rows] = -passes.row_logsumexp(scores, 1.0 / epsilon, u)[0]
    return u[0].to(frame.dtype), frame


@_sinkhorn_op.register_fake
def _(x: Tensor, codebook: Tensor | None, epsilon: float, iterations: int, group: str) -> tuple[Tensor, Tensor]:
    k = x.shape[1] if codebook is None else codebook.shape[0]
    return x.new_empty(k, dtype=_potential_dtype(x)), x.new_empty(x.shape[0], dtype=_potential_dtype(x))


def _potential_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def device_passes(device: torch.device, dtype: torch.dtype) -> Passes:
    """The passes for scores of `dtype` on `device`; Triton is imported for CUDA only."""
    if device.type == "cpu":
        from spintok_kernels import loss_native, sinkhorn_torch

        native = dtype == torch.float32 and loss_native.LOSS.choose()[0] != "torch"
        if dtype == torch.float32:
            loss_native.LOSS.warn_if_missing()
        columns = loss_native if native else sinkhorn_torch
        return Passes(columns.column_logsumexp, columns.column_totals, sinkhorn_torch.row_logsumexp)
    from spintok_kernels import sinkhorn_triton

    return Passes(sinkhorn_triton.column_logsumexp, sinkhorn_triton.column_totals, sinkhorn_triton.row_logsumexp)
