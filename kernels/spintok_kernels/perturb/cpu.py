"""The compiled CPU passes of speaker perturbation: pitch candidates, overlap-add, a cascade of biquads.

Arguments and results are contiguous float32 tensors on the CPU unless noted otherwise. The utterances of a batch are
processed in parallel. Arguments are not checked.
"""

import ctypes

import torch
from torch import Tensor

from spintok_kernels.native import LEVELS, NativeLibrary, share_threads
from spintok_kernels.perturb.tables import LAGS, LOW_HOP, PITCH_HOP

__all__ = ["PERTURB", "candidates", "cascade", "choose", "decimate", "overlap_add"]

# The compiled sizes are those of `tables`; perturb.cpp repeats them.
_DTYPES = {
    "decimate": (torch.float32, torch.int64),
    "candidates": (torch.float32,),
    "choose": (torch.float32,),
    "overlap_add": (torch.float32, torch.int64, torch.bool),
    "cascade": (torch.float32, torch.float64),
}


def _declare(library: ctypes.CDLL) -> None:
    share_threads(library.spintok_perturb_use)
    pointer, size, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
    run: list[type] = [number, number]
    waves: list[type] = [pointer, size, size, pointer]
    library.spintok_decimate.argtypes = [*waves, pointer, *run, pointer, size]
    library.spintok_candidates.argtypes = [pointer, size, size, *[pointer] * 3, real, *run, pointer, pointer]
    library.spintok_choose.argtypes = [pointer, size, size, pointer, pointer, *run, *[pointer] * 3]
    library.spintok_overlap_add.argtypes = [*waves, pointer, size, *[pointer] * 8, *run, pointer]
    library.spintok_cascade.argtypes = [pointer, size, size, pointer, size, *run, pointer]


PERTURB = NativeLibrary("perturb", abi=2, declare=_declare, portable=True)


def decimate(waveforms: Tensor, lengths: Tensor, kernel: Tensor) -> Tensor:
    """Return every fourth sample of the low-passed waveforms (B, S): (B, 40 ceil(S / 160)).

    `lengths` is (B,) int64; what is past them counts as silence. `kernel` (49,) is centred on the sample that is kept.
    """
    batch, samples = waveforms.shape
    low = waveforms.new_empty(batch, -(-samples // PITCH_HOP) * LOW_HOP)
    _call("decimate", (waveforms, batch, samples, lengths, kernel), (low, low.shape[1]))
    return low


def candidates(low: Tensor, cosine: Tensor, sine: Tensor, lags: Tensor, bonus: float) -> tuple[Tensor, Tensor]:
    """Return the strengths of the pitch candidates of every frame and the frames' energies.

    `low` is (B, 40 J); a frame is the 160 samples about the middle of every 40. `cosine` and `sine` (80, 64) are the
    second halves of the windowed waves of each bin. `lags` (64, 96) maps a power spectrum to the correlation at 81
    lags, the energy, and padding. The strengths (B, J, 96), of which the first 81 are used, are the correlation over
    the energy plus `bonus` times the candidate's number; the energies are (B, J).
    """
    batch, frames = low.shape[0], low.shape[1] // LOW_HOP
    strengths, energy = low.new_empty(batch, frames, LAGS), low.new_empty(batch, frames)
    _call("candidates", (low, batch, frames, cosine, sine, lags, bonus), (strengths, energy))
    return strengths, energy


def choose(strengths: Tensor, lowest: Tensor, highest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `spintok_kernels.perturb.choose_pitch`."""
    batch, frames, _ = strengths.shape
    best, place, offset = (strengths.new_empty(batch, frames) for _ in range(3))
    _call("choose", (strengths, batch, frames, lowest, highest), (best, place, offset))
    return best, place, offset


def overlap_add(
    waveforms: Tensor,
    lengths: Tensor,
    low: Tensor,
    old_rate: Tensor,
    new_rate: Tensor,
    voiced: Tensor,
    narrowing: Tensor,
    overlap: Tensor,
    speed: Tensor,
    kernels: Tensor,
    smoother: Tensor,
) -> Tensor:
    """Compute `spintok_kernels.perturb.overlap_add`; the result is 0 past `lengths` (B,), int64.

    `kernels` (B, 4, 18) are, for each power of the position between samples n and n + 1, the weights of samples
    n - 8 ... n + 9. `smoother` (9,) averages the phase of the pulses over cells.
    """
    batch, samples = waveforms.shape
    cells = old_rate.shape[1]
    inputs = (low, cells, old_rate, new_rate, voiced, narrowing, overlap, speed, kernels, smoother)
    output = torch.empty_like(waveforms)
    _call("overlap_add", (waveforms, batch, samples, lengths, *inputs), (output,))
    return output


def cascade(waveforms: Tensor, sections: Tensor) -> Tensor:
    """Filter `waveforms` (B, S) from rest by a cascade of biquads: (B, S).

    `sections` (B, N <= 16, 5) float64 are b0, b1, b2, a1, a2 of stable biquads with a0 = 1: the second-order sections
    of scipy without their fourth column.
    """
    batch, samples = waveforms.shape
    output = torch.empty_like(waveforms)
    _call("cascade", (waveforms, batch, samples, sections, sections.shape[1]), (output,))
    return output


def _call(function: str, inputs: tuple[Tensor | float, ...], results: tuple[Tensor | int, ...]) -> None:
    """Pass tensors as addresses, and insert the instruction set and the thread count between inputs and results."""
    core, _ = PERTURB.choose()
    for x in (*inputs, *results):
        # The library sees addresses only and would misread another type or layout.
        assert not isinstance(x, Tensor) or (x.is_contiguous() and x.dtype in _DTYPES[function]), (function, x.dtype)
    before, after = ([x.data_ptr() if isinstance(x, Tensor) else x for x in part] for part in (inputs, results))
    library = PERTURB.functions()
    status = getattr(library, f"spintok_{function}")(*before, LEVELS.index(core), torch.get_num_threads(), *after)
    if status == 1:
        raise MemoryError(f"{function}: out of memory for an utterance")
    if status:
        raise RuntimeError(f"{function}: this CPU does not support the {core} core")
