"""The swapped-prediction loss of Spin; the forward pass also computes the gradients.

With scores s_v = z_v C^T of view v, predictions P_v = softmax(s_v / temperature) and Sinkhorn targets Q_v
(no gradient), over N frames:

    loss = 1/(2N) sum_i [ H(Q_2i, P_1i) + H(Q_1i, P_2i) ],    H the cross-entropy
    G_1 = P_1 - Q_2,  G_2 = P_2 - Q_1,  gamma = 1 / (2 N temperature)
    dz_v = gamma G_v C,  dC = gamma (G_1^T z_1 + G_2^T z_2)

The scores are stored once and G overwrites them. The backward pass only multiplies by the incoming gradient.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from spintok_kernels.swapped_prediction import cpu
from spintok_kernels.swapped_prediction import torch as torch_passes
from spintok_kernels.swapped_prediction.checks import (
    check_iterations,
    check_matrix,
    check_positive,
    check_same_kind,
)
from spintok_kernels.swapped_prediction.ranks import group_name, sum_over_ranks, world_size
from spintok_kernels.swapped_prediction.sinkhorn import Blocks, Passes, code_potentials

__all__ = ["MEMORY_BUDGET", "LossPasses", "SwappedPrediction", "compute", "swapped_prediction_loss"]

MEMORY_BUDGET = 4 << 30
"""Bytes of scores to store. Larger problems recompute the scores of blocks of rows in every pass."""


class SwappedPrediction(NamedTuple):
    """The loss and the training metrics, which are None without `metrics`. Only `loss` has a gradient."""

    loss: Tensor
    """()"""
    prediction_perplexity: Tensor | None
    """(2,): exp of the entropy of each view's mean prediction P, in [1, K]."""
    assignment_perplexity: Tensor | None
    """(2,): exp of the entropy of each view's histogram of nearest codewords, in [1, K]; 1 is a collapse."""
    agreement: Tensor | None
    """(): the share of frames whose nearest codeword is the same in both views."""


class LossPasses(NamedTuple):
    """One device's passes of Sinkhorn, the last pass and the matrix product."""

    sinkhorn: Passes
    swap: Callable[[Tensor, float, Tensor, float, bool, bool], tuple[Tensor, Tensor, Tensor, Tensor]]
    """(scores, 1/epsilon, u, temperature, grad, metrics) -> loss, column sums of P, counts, agreeing rows."""
    product: Callable[[Tensor, Tensor, Tensor, Tensor, bool], None]
    """(out, a, b, scale, add): write scale * a @ b to `out`, or add it with `add`."""


def swapped_prediction_loss(
    z1: Tensor,
    z2: Tensor,
    codebook: Tensor,
    *,
    temperature: float = 0.1,
    epsilon: float = 0.02,
    iterations: int = 3,
    metrics: bool = True,
    memory_budget: int = MEMORY_BUDGET,
    score_dtype: torch.dtype | None = None,
    group: dist.ProcessGroup | None = None,
    counted: Tensor | None = None,
) -> SwappedPrediction:
    """The loss of Spin (Chang, Liu, Glass; arXiv 2305.11072) for one codebook, with all gradients.

    Args:
        z1, z2: (N, D), the embeddings of the same N frames in two views; float32, on the CPU also float64.
        codebook: (K, D). Spin normalises its rows, which belongs outside this function, in autograd. Rows of other
            lengths are allowed, but scores in half precision must stay below 65504.
        temperature: the temperature of the softmax of the predictions.
        epsilon: the entropic weight of Sinkhorn.
        iterations: Sinkhorn iterations; each ends with the totals of the frames, so the rows of Q sum to 1.
        metrics: whether to compute the last three fields of the result, which costs part of the last pass.
        memory_budget: bytes of scores to store; all scores take 2 N K times the size of one. With a smaller budget
            every pass recomputes the scores of one block of rows at a time: it takes less memory and more time, and
            gives the same result up to rounding.
        score_dtype: the dtype of stored scores. On the CPU it is that of the inputs. On CUDA it is float16 (the
            default; all products then have float16 operands and float32 sums) or float32.
        group: the process group of data parallelism. Ranks may have different N, at least one row each. Sinkhorn runs
            over the rows of all ranks, which exchange only the totals of the codewords. `loss` is
            world_size / (2 N_global) times the sum over the local rows, so that the mean over the ranks of the loss
            and of the gradients, which DistributedDataParallel takes, is that of one process with all rows. The
            metrics are those of all rows, on every rank.
        counted: (N,) bool, True at the frames whose totals Sinkhorn makes equal, at least one; all by default. Other
            frames have targets and a loss too, but claim no codewords: with few frames of silence counted, few
            codewords mean silence.

    Returns:
        SwappedPrediction. The same inputs, device and version give the same bits. Gradients are computed only for
        inputs that require them. A NaN or infinite input makes the loss, the metrics and the gradients NaN.

    Raises:
        ValueError: a shape, dtype, device, layout or number is wrong. The message names the argument.
        RuntimeError: a second derivative is requested.
    """
    on_cpu = z1.device.type == "cpu" if isinstance(z1, Tensor) else True
    dtypes = (torch.float32, torch.float64) if on_cpu else (torch.float32,)
    for name, x in (("z1", z1), ("z2", z2), ("codebook", codebook)):
        check_matrix(name, x, dtypes)
        check_same_kind(name, x, "z1", z1)
    if z1.shape != z2.shape:
        raise ValueError(f"z2 has shape {tuple(z2.shape)}, z1 has {tuple(z1.shape)}")
    if codebook.shape[1] != z1.shape[1]:
        raise ValueError(f"codebook has rows of {codebook.shape[1]} numbers, those of z1 have {z1.shape[1]}")
    check_positive(temperature=temperature, epsilon=epsilon)
    check_positive(memory_budget=memory_budget)
    check_iterations(iterations)
    if score_dtype is None:
        score_dtype = z1.dtype if on_cpu else torch.float16
    elif score_dtype not in ((z1.dtype,) if on_cpu else (torch.float16, torch.float32)):
        allowed = str(z1.dtype) if on_cpu else "torch.float16 or torch.float32"
        raise ValueError(f"score_dtype must be {allowed} here, got {score_dtype}")
    if counted is not None:
        if counted.shape != z1.shape[:1] or counted.dtype != torch.bool or counted.device != z1.device:
            raise ValueError(f"counted must be ({len(z1)},) bool on {z1.device}, got {tuple(counted.shape)}")
        if not counted.any():
            raise ValueError("counted must be True for at least one frame")
    tracked = torch.is_grad_enabled()
    needs = [tracked and z1.requires_grad, tracked and z2.requires_grad, tracked and codebook.requires_grad]
    loss, watched, *_ = _loss_op(
        z1,
        z2,
        codebook,
        temperature,
        epsilon,
        iterations,
        metrics,
        needs,
        memory_budget,
        score_dtype,
        group_name(group),
        counted,
    )
    if not metrics:
        return SwappedPrediction(loss, None, None, None)
    watched = watched.detach()
    return SwappedPrediction(loss, watched[0:2], watched[2:4], watched[4])


def compute(
    z1: Tensor,
    z2: Tensor,
    codebook: Tensor,
    *,
    temperature: float,
    epsilon: float,
    iterations: int,
    metrics: bool,
    needs: Sequence[bool],
    memory_budget: int,
    score_dtype: torch.dtype,
    group: str,
    passes: LossPasses,
    counted: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return loss, metrics (5,), dz (2, N, D), dcodebook (K, D) and 1, the factor that the gradients lack.

    A gradient that is not needed has shape (0,); if one view needs none, its half of dz is not initialised.
    """
    n, k = z1.shape[0], codebook.shape[0]
    z = (z1.to(score_dtype), z2.to(score_dtype))
    words = codebook.to(score_dtype)
    row_bytes = 2 * k * words.element_size()
    step = min(n, max(1, memory_budget // row_bytes))
    buffer = torch.empty((2, step, k), dtype=score_dtype, device=z1.device)
    stored = step == n

    def fill(views: tuple[Tensor, Tensor], rows: slice) -> Tensor:
        # The last block may be shorter, but is contiguous like the others.
        height = rows.stop - rows.start
        scores = buffer.view(-1)[: 2 * height * k].view(2, height, k)
        for v in (0, 1):
            torch.mm(views[v][rows], words.T, out=scores[v])
        return scores

    def blocks_of(views: tuple[Tensor, Tensor]) -> Blocks:
        """The blocks of two views; if all scores fit into the buffer, they are computed here, and once."""
        count = len(views[0])
        whole = fill(views, slice(0, count)) if stored else None

        def blocks() -> Iterable[tuple[slice, Tensor]]:
            for start in range(0, count, step):
                rows = slice(start, min(start + step, count))
                yield rows, fill(views, rows) if whole is None else whole

        return blocks

    options: dict[str, Any] = {"epsilon": epsilon, "iterations": iterations, "group": group}
    if counted is not None:
        u, all_rows = code_potentials(blocks_of((z[0][counted], z[1][counted])), passes.sinkhorn, n, **options)
    blocks = blocks_of(z)
    if counted is None:
        u, all_rows = code_potentials(blocks, passes.sinkhorn, n, **options)
    share = world_size(group) / (2 * all_rows)
    gamma = (share / temperature).to(z1.dtype)

    dz, dc = _empty_gradients(z1, codebook, needs)
    loss = all_rows.new_zeros(())
    watched = all_rows.new_zeros(4 * k + 1)
    for rows, scores in blocks():
        total, *sums = passes.swap(scores, 1.0 / epsilon, u, temperature, any(needs), metrics)
        loss += total
        if metrics:
            watched += torch.cat([x.flatten() for x in sums])
        for v in (0, 1):
            if needs[v]:
                passes.product(dz[v][rows], scores[v], words, gamma, False)
            if needs[2]:
                passes.product(dc, scores[v].T, z[v][rows], gamma, v > 0 or rows.start > 0)
    loss *= share
    if metrics:
        watched = sum_over_ranks(watched, group) / all_rows
        perplexity = torch.exp(torch.special.entr(watched[:-1].view(4, k)).sum(1))
        # Counts are always finite: make the metrics NaN where the loss is.
        watched = torch.cat([perplexity, watched[-1:]]) + 0 * loss
    else:
        watched = watched[:0]
    return loss.to(z1.dtype), watched.to(z1.dtype), dz, dc, z1.new_ones(())


@torch.library.custom_op("spintok::swapped_prediction_loss", mutates_args=())
def _loss_op(
    z1: Tensor,
    z2: Tensor,
    codebook: Tensor,
    temperature: float,
    epsilon: float,
    iterations: int,
    metrics: bool,
    needs: Sequence[bool],
    memory_budget: int,
    score_dtype: torch.dtype,
    group: str,
    counted: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    # Autocast must not lower the precision of the products.
    with torch.autocast(z1.device.type, enabled=False):
        options: dict[str, Any] = {
            "temperature": temperature,
            "epsilon": epsilon,
            "iterations": iterations,
            "metrics": metrics,
            "needs": needs,
        }
        stored = 4 * z1.shape[0] * codebook.shape[0] <= memory_budget
        if z1.is_cuda and score_dtype == torch.float16 and stored and not group and counted is None:
            from spintok_kernels.swapped_prediction import triton as kernels

            return kernels.step(z1, z2, codebook, **options)
        return compute(
            z1,
            z2,
            codebook,
            memory_budget=memory_budget,
            score_dtype=score_dtype,
            group=group,
            passes=_loss_passes(z1.device, score_dtype),
            counted=counted,
            **options,
        )


@_loss_op.register_fake
def _(
    z1: Tensor,
    z2: Tensor,
    codebook: Tensor,
    temperature: float,
    epsilon: float,
    iterations: int,
    metrics: bool,
    needs: Sequence[bool],
    memory_budget: int,
    score_dtype: torch.dtype,
    group: str,
    counted: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return z1.new_empty(()), z1.new_empty(5 if metrics else 0), *_empty_gradients(z1, codebook, needs), z1.new_empty(())


def _empty_gradients(z: Tensor, codebook: Tensor, needs: Sequence[bool]) -> tuple[Tensor, Tensor]:
    dz = z.new_empty((2, *z.shape) if needs[0] or needs[1] else 0)
    return dz, codebook.new_empty(codebook.shape if needs[2] else 0)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.needs = inputs[7]
    ctx.save_for_backward(*output[2:])


def _backward(ctx: Any, grad: Tensor | None, *others: None) -> tuple[Tensor | None, ...]:
    # With create_graph, autograd would treat the saved gradients as constants.
    if torch.is_grad_enabled():
        raise RuntimeError("swapped_prediction_loss has no second derivative; drop create_graph")
    if grad is None:
        return (None,) * 12
    dz, dc, factor = ctx.saved_tensors
    dz, dc = torch.ops.spintok.swapped_prediction_gradients(grad, factor, dz, dc)
    first, second, codes = ctx.needs
    return dz[0] if first else None, dz[1] if second else None, dc if codes else None, *(None,) * 9


_loss_op.register_autograd(_backward, setup_context=_save)


@torch.library.custom_op("spintok::swapped_prediction_gradients", mutates_args=())
def _gradients_op(grad: Tensor, factor: Tensor, dz: Tensor, dc: Tensor) -> tuple[Tensor, Tensor]:
    if grad.is_cuda:
        from spintok_kernels.swapped_prediction import triton as kernels

        return kernels.scale(grad, factor, dz, dc)
    scale = grad * factor
    return scale * dz, scale * dc


@_gradients_op.register_fake
def _(grad: Tensor, factor: Tensor, dz: Tensor, dc: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(dz), torch.empty_like(dc)


def _loss_passes(device: torch.device, dtype: torch.dtype) -> LossPasses:
    if device.type == "cpu":
        if dtype == torch.float32:
            cpu.LOSS.warn_if_missing()
            if cpu.LOSS.choose()[0] != "torch":
                return LossPasses(Passes(cpu.column_logsumexp, cpu.column_totals), cpu.swap, torch_passes.product)
        columns = Passes(torch_passes.column_logsumexp, torch_passes.column_totals)
        return LossPasses(columns, torch_passes.swap, torch_passes.product)
    # Imported only for CUDA tensors: a machine without a GPU needs no Triton.
    from spintok_kernels.swapped_prediction import triton as kernels

    return LossPasses(Passes(kernels.column_logsumexp, kernels.column_totals), kernels.swap, kernels.product)
