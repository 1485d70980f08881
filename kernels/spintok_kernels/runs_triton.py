"""De-duplication on a GPU: one program an utterance, one launch, nothing read back."""

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["runs", "runs_kernel"]

# Frames a step; 20 s of audio are 1000.
BLOCK = 1024


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b)


@triton.jit(do_not_specialize=["frames"])
def runs_kernel(codes_ptr, lengths_ptr, run_codes_ptr, durations_ptr, counts_ptr, frames, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    codes_ptr += row * frames
    run_codes_ptr += row * frames
    durations_ptr += row * frames
    length = tl.load(lengths_ptr + row).to(tl.int32)
    good = (length >= 0) & (length <= frames)
    length = tl.where(good, length, 0)

    count = 0
    # The first frame of the run that is open where a block begins.
    opened = 0
    for first in range(0, length, BLOCK):
        t = first + tl.arange(0, BLOCK)
        inside = t < length
        code = tl.load(codes_ptr + t, mask=inside, other=0)
        before = tl.load(codes_ptr + t - 1, mask=inside & (t > 0), other=0)
        after = tl.load(codes_ptr + t + 1, mask=t + 1 < length, other=0)
        starts = inside & ((t == 0) | (code != before))
        ends = inside & ((t + 1 == length) | (code != after))
        run = count + tl.cumsum(starts.to(tl.int32), 0) - 1
        start = tl.associative_scan(tl.where(starts, t, opened), 0, _larger)
        tl.store(run_codes_ptr + run, code, mask=starts)
        tl.store(durations_ptr + run, t + 1 - start, mask=ends)
        count += tl.sum(starts.to(tl.int32), 0)
        opened = tl.max(start, 0)

    for first in range(count // BLOCK * BLOCK, frames, BLOCK):
        t = first + tl.arange(0, BLOCK)
        behind = (t >= count) & (t < frames)
        tl.store(run_codes_ptr + t, tl.full([BLOCK], -1, run_codes_ptr.dtype.element_ty), mask=behind)
        tl.store(durations_ptr + t, tl.full([BLOCK], 0, tl.int32), mask=behind)
    tl.store(counts_ptr + row, tl.where(good, count, -1))


def runs(codes: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Checked arguments in, the fields of `Runs` out."""
    run_codes = torch.empty_like(codes)
    durations = torch.empty_like(codes, dtype=torch.int32)
    counts = torch.empty_like(lengths, dtype=torch.int32)
    if len(codes):
        with torch.cuda.device_of(codes):
            runs_kernel[(len(codes),)](codes, lengths, run_codes, durations, counts, codes.shape[1], BLOCK=BLOCK)
    return run_codes, durations, counts
