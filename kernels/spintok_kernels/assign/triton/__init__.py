"""Exact codebook assignment on a GPU in one or two launches, without reading anything back.

1. `prepare`, once a codebook: centre it (L2), scale it by a power of two, round it to float16, and measure the loss.
2. `nearest_kernel` or, for D > 256, `nearest_wide_kernel`: scale, round and measure rows as they are read; one float16
   product decides most of them. Small problems are finished in the same launch.
3. `finish_kernel`, a warp a row: decide the others by float64 among the candidates that the main pass names.

Nothing depends on the order of programs, and no kernel uses atomics: two runs give the same bits.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from spintok_kernels.assign.triton.codebook import prepare_kernel
from spintok_kernels.assign.triton.finish import finish_kernel
from spintok_kernels.assign.triton.nearest import nearest_kernel
from spintok_kernels.assign.triton.tiles import MAX_SPLITS, ROWS_PADDED, SLAB, SUB, Tile, chunks, group_bits, tile_for
from spintok_kernels.assign.triton.wide import nearest_wide_kernel

__all__ = ["assign", "empty_codebook", "prepare"]


def empty_codebook(codebook: Tensor, metric: str) -> list[Tensor]:
    """Return uninitialised tensors for `prepare`: codebook, rounded codebook, biases, mean, and six numbers."""
    k, depth = codebook.shape
    rows, width = (k + ROWS_PADDED - 1) // ROWS_PADDED * ROWS_PADDED, chunks(depth).padded
    return [
        codebook.new_empty(k, depth),
        codebook.new_empty(rows, width, dtype=torch.float16),
        codebook.new_empty(rows),
        codebook.new_empty(depth if metric == "l2" else 0),
        codebook.new_empty(6),
    ]


def prepare(codebook: Tensor, metric: str) -> list[Tensor]:
    """Round a codebook. Arguments are not checked; with a codeword that is not finite all ids will be -1."""
    prepared = empty_codebook(codebook, metric)
    book, half, bias, mean, numbers = prepared
    l2 = metric == "l2"
    (k, depth), (rows, width) = codebook.shape, half.shape
    book.copy_(codebook)
    if l2:
        torch.mean(codebook, 0, out=mean)
    # Centring at most doubles the largest element.
    top = codebook.abs().amax() * (2 if l2 else 1)
    wide = triton.next_power_of_2(width)
    block = max(1, 4096 // wide)
    programs = triton.cdiv(rows, block)
    parts = torch.empty(6, programs, device=codebook.device)
    with torch.cuda.device_of(codebook):
        prepare_kernel[(programs,)](
            book, mean, top, half, bias, parts, k, rows, D=depth, DP=width, WIDE=wide, BLOCK=block, L2=l2
        )
    torch.amax(parts, 1, out=numbers)
    return prepared


def assign(
    z: Tensor,
    prepared: Sequence[Tensor],
    metric: str,
    details: bool,
    *,
    tile: Tile | None = None,
    splits: int = 0,
    processors: int = 0,
    slab: int = SLAB,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return ids (N,) and, with `details`, scores and margins (N,). Arguments are not checked.

    Tests pass `tile`, `splits`, `processors` and `slab` to replace the choices for this GPU.
    """
    n = len(z)
    ids = torch.empty(n, dtype=torch.int32, device=z.device)
    scores, margins = (torch.empty(n if details else 0, device=z.device) for _ in range(2))
    k, depth = prepared[0].shape
    hopper = True
    if z.is_cuda:
        gpu = torch.cuda.get_device_properties(z.device)
        processors, hopper = processors or gpu.multi_processor_count, gpu.major == 9
    l2 = metric == "l2"
    with torch.cuda.device_of(z):
        for start in range(0, n, slab):
            stop = min(start + slab, n)
            out = (ids[start:stop], scores[start:stop], margins[start:stop])
            rows = z[start:stop]
            chosen = tile or tile_for(
                stop - start, k, depth, processors=processors, hopper=hopper, details=details, l2=l2
            )
            _assign_slab(rows, prepared, l2, details, out, chosen, processors, splits)
    return (ids, scores, margins) if details else (ids, None, None)


def _assign_slab(
    z: Tensor,
    prepared: Sequence[Tensor],
    l2: bool,
    details: bool,
    out: tuple[Tensor, Tensor, Tensor],
    tile: Tile,
    processors: int,
    splits: int,
) -> None:
    book, half, bias, mean, numbers = prepared
    (n, depth), k, width = z.shape, len(book), half.shape[1]
    ids, scores, margins = out
    groups = triton.cdiv(k, tile.codes)
    blocks = triton.cdiv(n, tile.rows)
    if not splits:
        # Few rows: several programs share the codes of a tile of rows.
        splits = 1 if details or tile.fused else max(1, min(MAX_SPLITS, processors // blocks))
    splits = min(groups, splits)
    programs = min(blocks * splits, tile.per_processor * processors)
    parts = splits * n
    device = z.device
    lanes = torch.empty(parts, 64, device=device)
    limit = torch.empty(2 * parts, device=device)
    open_rows = torch.empty(max(parts, blocks * tile.rows), dtype=torch.int32, device=device)
    counts = torch.empty(blocks, dtype=torch.int32, device=device)
    scratch = torch.empty(programs * tile.rows * width if tile.scratch else 1, dtype=torch.float16, device=device)
    inputs = (z, mean, _descriptor(half, tile) if tile.tma else half, bias, numbers)
    work = (lanes, limit, open_rows, counts)
    wide = triton.next_power_of_2(depth)
    groups_of_32 = triton.cdiv(k, 32)
    common: dict[str, Any] = {
        "D": depth,
        "BN": tile.rows,
        "SPLIT": splits > 1,
        "BITS": group_bits(k),
        "L2": l2,
        "DETAILS": details,
    }
    options = {"BK": tile.codes, "STAGES": tile.stages, **tile.options}
    if tile.streamed:
        nearest_wide_kernel[(programs,)](
            *inputs,
            ids,
            *work,
            scratch,
            n,
            groups,
            splits,
            DP=width,
            BD=tile.columns,
            TMA=tile.tma,
            **common,
            **options,
        )
    else:
        cut = chunks(depth)
        nearest_kernel[(programs,)](
            *(*inputs, ids, *work, scratch, book, n, groups, splits, k, groups_of_32),
            NC=cut.number,
            CW=cut.width,
            SCRATCH=tile.scratch,
            FUSED=tile.fused,
            WIDE=wide,
            **common,
            **options,
        )
    if tile.fused:
        return
    items = min(n, 16 * processors) if splits > 1 else blocks * SUB
    finish_kernel[(items,)](
        *(z, book, numbers, ids, scores, margins, *work, n, k, groups_of_32, items, splits),
        WIDE=wide,
        SUB=SUB,
        SP=MAX_SPLITS,
        num_warps=1,
        **common,
    )


def _descriptor(half: Tensor, tile: Tile) -> Any:
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor.from_tensor(half, [tile.codes, tile.columns])
