"""The compiled CPU passes of speaker perturbation: pitch candidates, overlap-add, a cascade of biquads.

All take and give contiguous float32 on the CPU unless said otherwise, work on the utterances of a batch in
parallel, and check nothing: `spintok.augment` is who calls them, and has the same in torch.
"""

import ctypes

import torch
from torch import Tensor

from spintok_kernels.native import LEVELS, NativeLibrary

__all__ = ["PERTURB", "candidates", "cascade", "choose", "decimate", "overlap_add", "runs_on"]

# Of the compiled sizes, see perturb_cpu.cpp.
LAGS, LOW_HOP, PITCH_HOP = 96, 40, 160

_DTYPES = {
    "decimate": (torch.float32, torch.int64),
    "candidates": (torch.float32,),
    "choose": (torch.float32,),
    "overlap_add": (torch.float32, torch.int64, torch.bool),
    "cascade": (torch.float32, torch.float64),
}


def _declare(library: ctypes.CDLL) -> None:
    pointer, size, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
    run: list[type] = [number, number]
    waves: list[type] = [pointer, size, size, pointer]
    library.spintok_decimate.argtypes = [*waves, pointer, *run, pointer, size]
    library.spintok_candidates.argtypes = [pointer, size, size, *[pointer] * 3, real, *run, pointer, pointer]
    library.spintok_choose.argtypes = [pointer, size, size, pointer, pointer, *run, *[pointer] * 3]
    library.spintok_overlap_add.argtypes = [*waves, pointer, size, *[pointer] * 8, *run, pointer]
    library.spintok_cascade.argtypes = [pointer, size, size, pointer, size, *run, pointer]


PERTURB = NativeLibrary("perturb", abi=1, declare=_declare, portable=True)


def runs_on(x: Tensor) -> bool:
    """Whether these passes are to be used for `x`; if they could be had and are not there, a warning says so once."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return False
    PERTURB.warn_if_missing()
    return PERTURB.choose()[0] != "torch"


def decimate(waveforms: Tensor, lengths: Tensor, kernel: Tensor) -> Tensor:
    """Every fourth sample of the low-passed waveforms (B, S): (B, 40 ceil(S / 160)), as if S were a multiple of 160.

    `lengths` (B,) int64, what lies beyond is silence; `kernel` (49,), its middle on the sample that is kept.
    """
    batch, samples = waveforms.shape
    low = waveforms.new_empty(batch, -(-samples // PITCH_HOP) * LOW_HOP)
    _call("decimate", (waveforms, batch, samples, lengths, kernel), (low, low.shape[1]))
    return low


def candidates(low: Tensor, cosine: Tensor, sine: Tensor, lags: Tensor, bonus: float) -> tuple[Tensor, Tensor]:
    """Strengths of the pitch candidates of every frame, and the energies of the frames.

    `low` (B, 40 J), a frame of 160 samples about the middle of every 40. `cosine` and `sine` (80, 64): the window
    times the bin's wave from the window's middle on; `lags` (64, 96): power spectrum to the correlation at each of 81
    lags, then to the energy, then padding. Returns (B, J, 96) correlation over energy plus `bonus` times the
    candidate's number, of which the first 81 count, and (B, J).
    """
    batch, frames = low.shape[0], low.shape[1] // LOW_HOP
    strengths, energy = low.new_empty(batch, frames, LAGS), low.new_empty(batch, frames)
    _call("candidates", (low, batch, frames, cosine, sine, lags, bonus), (strengths, energy))
    return strengths, energy


def choose(strengths: Tensor, lowest: Tensor, highest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The strongest candidate (the first of equals) from `lowest` to `highest` (B,), which count candidates.

    `strengths` as `candidates` gives them. Returns (B, J) each: its strength, its number, and how far from it, in
    [-1/2, 1/2], is the top of the parabola through it and its neighbours, those out of the range having strength -1.
    """
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
    """Lay grains of `waveforms` (B, S) down at a new pitch, each read at `speed` (B,): (B, S), zero past `lengths`.

    Pitch is constant within C cells of 80 samples, C = 2 ceil(S / 160): `old_rate` and `new_rate` (B, C) in cycles a
    sample, the new one at most 950 / 16000; `voiced` (B, C) bool. A grain stays where it is without voice, else it is
    centred on a pulse of `low` (B, 20 C), the waveforms' `decimate`, whose phase is averaged over 9 cells by
    `smoother` (9,). `narrowing` and `overlap` (B, C, 2), at the edges of each cell: a grain's fade is so many times
    faster than its period, and the sum of the two grains with fades a and b is divided by sqrt(1 + overlap a b),
    overlap from -2 to 0. `kernels` (B, 4, 18): for each power of the place between samples n and n + 1 the weights of
    samples n - 8 ... n + 9.
    """
    batch, samples = waveforms.shape
    cells = old_rate.shape[1]
    inputs = (low, cells, old_rate, new_rate, voiced, narrowing, overlap, speed, kernels, smoother)
    output = torch.empty_like(waveforms)
    _call("overlap_add", (waveforms, batch, samples, lengths, *inputs), (output,))
    return output


def cascade(waveforms: Tensor, sections: Tensor) -> Tensor:
    """Filter `waveforms` (B, S) from rest by biquads in a row: (B, S).

    `sections` (B, N <= 16, 5) float64: b0 b1 b2 a1 a2 of stable biquads with a0 = 1, as in scipy's second-order
    sections without their fourth column.
    """
    batch, samples = waveforms.shape
    output = torch.empty_like(waveforms)
    _call("cascade", (waveforms, batch, samples, sections, sections.shape[1]), (output,))
    return output


def _call(function: str, inputs: tuple[Tensor | float, ...], results: tuple[Tensor | int, ...]) -> None:
    """Call with tensors as addresses; the instruction set and the threads come between inputs and results."""
    core, _ = PERTURB.choose()
    for x in (*inputs, *results):
        # Addresses carry no type: a slip would be read as garbage.
        assert not isinstance(x, Tensor) or (x.is_contiguous() and x.dtype in _DTYPES[function]), (function, x.dtype)
    before, after = ([x.data_ptr() if isinstance(x, Tensor) else x for x in part] for part in (inputs, results))
    library = PERTURB.functions()
    status = getattr(library, f"spintok_{function}")(*before, LEVELS.index(core), torch.get_num_threads(), *after)
    if status == 1:
        raise MemoryError(f"{function}: no memory for an utterance")
    if status:
        raise RuntimeError(f"{function}: this CPU cannot run the {core} core")
