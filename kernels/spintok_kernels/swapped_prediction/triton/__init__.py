"""The loss on a GPU: at most 17 launches for a step with metrics and backward pass, whatever K is.

cast | scores = Z C^T, one product for both views | columns, update | (totals, update) x (iterations - 1) | totals of P
and zeroed counts | swap | entropies | final | dZ = G C | dC = G^T Z by parts of the rows, and their sum | backward:
scale the gradients.

Scores are float16 with rows of LD numbers, a multiple of 64, so that cuBLAS and Triton read 16 bytes at a time for
every K. Nothing waits for the device and every sum has a fixed order. `step` needs all scores in memory; otherwise, for
float32 scores and for process groups, `spintok_kernels.swapped_prediction.op.compute` calls the passes one by one.
"""

import math
from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from spintok_kernels.swapped_prediction.triton.ends import cast_kernel, entropy_kernel, final_kernel, scale_kernel
from spintok_kernels.swapped_prediction.triton.passes import (
    columns_kernel,
    swap_kernel,
    totals_kernel,
    update_kernel,
)

__all__ = ["MAX_CODES", "column_logsumexp", "column_totals", "product", "scale", "step", "swap"]

MAX_CODES = 8192
"""The largest supported K: a program keeps a whole row of scores in registers."""

LOG2_E: float = 1 / math.log(2)
# Codewords of a program of `update_kernel` and `entropy_kernel`; numbers of one of `cast_kernel` and `scale_kernel`.
CODES, BLOCK = 32, 4096


def step(
    z1: Tensor,
    z2: Tensor,
    codebook: Tensor,
    *,
    temperature: float,
    epsilon: float,
    iterations: int,
    metrics: bool,
    needs: Sequence[bool],
    processors: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return loss, metrics (5,), dz (2, N, D), dcodebook (K, D) and the factor that the gradients lack."""
    (n, depth), k = z1.shape, len(codebook)
    device = z1.device
    width = padded_width(k)
    rounded = torch.empty(2, n, depth, dtype=torch.float16, device=device)
    codes = torch.empty(width, depth, dtype=torch.float16, device=device)
    scores = torch.empty(2, n, width, dtype=torch.float16, device=device)
    sizes = {"K": k, "LD": width}
    kp, rows, warps = pass_tile(k)
    tile = {**sizes, "KP": kp, "BN": rows, "num_warps": warps}
    count = programs(n, rows, device, processors)
    many = triton.next_power_of_2(count)
    blocks = triton.cdiv(k, CODES)
    parts = torch.empty(2, count, width, device=device)
    exact = torch.empty(2, width, dtype=torch.float64, device=device)
    u = torch.empty(2, width, device=device)
    swap_kp, swap_rows, swap_warps, swap_columns = swap_tile(k)
    swaps = programs(n, swap_rows, device, processors)
    losses = torch.empty(swaps, device=device)
    agreements = torch.empty(swaps, dtype=torch.int32, device=device)
    entropies = torch.empty(4, blocks, dtype=torch.float64, device=device)
    loss, factor = torch.empty((), device=device), torch.empty((), device=device)
    watched = torch.empty(5 if metrics else 0, device=device)
    scale, inverse = LOG2_E / epsilon, LOG2_E / temperature
    updates = {**sizes, "BK": CODES, "GP": many}
    with torch.cuda.device_of(z1):
        cast_kernel[(triton.cdiv(max(n, width) * depth, BLOCK), 3)](
            z1, z2, codebook, rounded, codes, n, D=depth, BLOCK=BLOCK, **sizes
        )
        torch.mm(rounded.view(2 * n, depth), codes.T, out=scores.view(2 * n, width))
        columns_kernel[(count, 2)](scores, parts, n, scale, **tile)
        update_kernel[(blocks, 2)](parts, exact, u, count, FIRST=True, **updates)
        for _ in range(iterations - 1):
            totals_kernel[(count, 2)](scores, u, parts, n, scale, POTENTIAL=True, **tile)
            update_kernel[(blocks, 2)](parts, exact, u, count, FIRST=False, **updates)
        counts = agreements
        if metrics:
            # A pass of its own: in the last pass two more rows of registers would spill.
            totals_kernel[(count, 2)](scores, u, parts, n, inverse, POTENTIAL=False, **tile)
            counts = torch.zeros(2, width, dtype=torch.int32, device=device)
        swap_kernel[(swaps,)](
            *(scores, u, losses, agreements, counts, n, scale, inverse),
            KP=swap_kp,
            BN=swap_rows,
            TILE=swap_columns,
            GRAD=any(needs),
            METRICS=metrics,
            num_warps=swap_warps,
            **sizes,
        )
        if metrics:
            entropy_kernel[(blocks, 2)](parts, counts, entropies, count, n, **updates)
        final_kernel[(1,)](
            *(losses, agreements, entropies, loss, watched, factor, swaps, blocks, n, temperature),
            GP=triton.next_power_of_2(swaps),
            EP=triton.next_power_of_2(blocks),
            METRICS=metrics,
        )
    gradients = scores.view(2 * n, width)
    dz, dc = torch.empty(0, device=device), torch.empty(0, device=device)
    if needs[0] or needs[1]:
        dz = _product(gradients, codes).view(2, n, depth)
    if needs[2]:
        dc = _codebook_gradient(gradients, rounded.view(2 * n, depth), device, processors)[:k]
    return loss, watched, dz, dc, factor


def scale(grad: Tensor, factor: Tensor, dz: Tensor, dc: Tensor) -> tuple[Tensor, Tensor]:
    """Return dz and dc times grad * factor, in one launch."""
    z_out, c_out = torch.empty_like(dz), torch.empty_like(dc)
    largest = max(dz.numel(), dc.numel())
    if largest:
        with torch.cuda.device_of(dz):
            scale_kernel[(triton.cdiv(largest, BLOCK), 2)](
                dz, dc, z_out, c_out, grad, factor, dz.numel(), dc.numel(), BLOCK=BLOCK
            )
    return z_out, c_out


def _codebook_gradient(gradients: Tensor, z: Tensor, device: torch.device, processors: int) -> Tensor:
    """Return gradients^T z. The result has few tiles, so parts of the rows are multiplied apart and added in order."""
    width, depth = gradients.shape[1], z.shape[1]
    tiles = triton.cdiv(width, 128) * triton.cdiv(depth, 128)
    parts = max(1, min(32, 2 * _processors(device, processors) // tiles))
    while len(z) % parts:
        parts -= 1
    if parts == 1:
        return _product(gradients.T, z)
    left, right = gradients.view(parts, -1, width).transpose(1, 2), z.view(parts, -1, depth)
    if z.is_cuda:
        return torch.bmm(left, right, out_dtype=torch.float32).sum(0)
    return torch.bmm(left.float(), right.float()).sum(0)


def _product(a: Tensor, b: Tensor) -> Tensor:
    # On the CPU only under Triton's interpreter, in tests.
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else a.float() @ b.float()


def padded_width(k: int) -> int:
    """Return the columns of stored scores, a multiple of 64. ValueError beyond MAX_CODES."""
    if k > MAX_CODES:
        raise ValueError(f"codebook has {k} rows; on CUDA at most {MAX_CODES} are supported")
    return -(-k // 64) * 64


def pass_tile(k: int) -> tuple[int, int, int]:
    """Return KP, the rows of a block and the warps of a pass over rows of k scores. ValueError beyond MAX_CODES."""
    padded_width(k)
    kp = max(16, int(triton.next_power_of_2(k)))
    return kp, max(1, 4096 // kp), 16 if kp == 8192 else 8


def swap_tile(k: int) -> tuple[int, int, int, int]:
    """Return KP, the rows of a block, the warps and the columns of a tile of the last pass over rows of k scores."""
    kp, _, _ = pass_tile(k)
    return kp, max(1, 2048 // kp), 16 if kp >= 4096 else 8, min(kp, 4096)


def programs(n: int, rows: int, device: torch.device, processors: int = 0) -> int:
    """Return the programs of a view: two a multiprocessor, at most one for each block of `rows` rows."""
    return min(2 * _processors(device, processors), -(-n // rows))


def _processors(device: torch.device, processors: int) -> int:
    if processors or device.type == "cpu":
        # Under Triton's interpreter, in tests.
        return processors or 3
    return torch.cuda.get_device_properties(device).multi_processor_count


def column_logsumexp(scores: Tensor, scale: float) -> Tensor:
    """Return log sum_i exp(scale * scores[v, i, j]), (V, K) float64."""
    views, n, k = scores.shape
    kp, rows, warps = pass_tile(k)
    count = programs(n, rows, scores.device)
    parts = torch.empty((views, count, k), dtype=torch.float32, device=scores.device)
    with torch.cuda.device_of(scores):
        columns_kernel[(count, views)](scores, parts, n, scale * LOG2_E, K=k, LD=k, KP=kp, BN=rows, num_warps=warps)
    return torch.logsumexp(parts.double() * math.log(2), 1)


def column_totals(scores: Tensor, scale: float, u: Tensor | None) -> Tensor:
    """Return S_j = sum_i softmax_j(scale * scores[v, i] + u[v]), (V, K) float64; u is 0 if None."""
    views, n, k = scores.shape
    kp, rows, warps = pass_tile(k)
    count = programs(n, rows, scores.device)
    parts = torch.empty((views, count, k), dtype=torch.float32, device=scores.device)
    potential = parts if u is None else (u * LOG2_E).float()
    sizes = {"K": k, "LD": k, "KP": kp, "BN": rows, "num_warps": warps}
    with torch.cuda.device_of(scores):
        totals_kernel[(count, views)](scores, potential, parts, n, scale * LOG2_E, POTENTIAL=u is not None, **sizes)
    return parts.sum(1, dtype=torch.float64)


def swap(
    scores: Tensor, scale: float, u: Tensor, temperature: float, grad: bool, metrics: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the same as `spintok_kernels.swapped_prediction.torch.swap`."""
    _, n, k = scores.shape
    kp, rows, warps, tile = swap_tile(k)
    count = programs(n, rows, scores.device)
    losses = torch.empty(count, dtype=torch.float32, device=scores.device)
    predictions = losses.new_zeros((2, k), dtype=torch.float64)
    if metrics:
        predictions = column_totals(scores, 1.0 / temperature, None)
    agreements = torch.empty(count, dtype=torch.int32, device=scores.device)
    counts = torch.zeros((2, k), dtype=torch.int32, device=scores.device)
    sizes = {"K": k, "LD": k, "KP": kp, "BN": rows, "TILE": tile, "num_warps": warps}
    with torch.cuda.device_of(scores):
        swap_kernel[(count,)](
            *(scores, (u * LOG2_E).float(), losses, agreements, counts, n, scale * LOG2_E, LOG2_E / temperature),
            GRAD=grad,
            METRICS=metrics,
            **sizes,
        )
    loss = losses.sum(dtype=torch.float64) / LOG2_E
    return loss, predictions, counts.double(), agreements.sum().double()


def product(out: Tensor, a: Tensor, b: Tensor, scale: Tensor, add: bool) -> None:
    """Write scale * a @ b to `out`, or add it with `add`; half operands are summed in float32."""
    result = a @ b if a.dtype == out.dtype else torch.mm(a, b, out_dtype=out.dtype)
    if add:
        out.addcmul_(result, scale)
    else:
        torch.mul(result, scale, out=out)
