"""The registered operations of speaker perturbation.

On the CPU each runs the compiled passes for float32, and torch otherwise or where nothing is compiled; on CUDA it runs
torch, without waiting for the device. The results of an utterance do not depend on the others in its batch. No
gradients flow. Waveforms are (B, S) at 16 kHz with their lengths (B,) in samples, integers.
"""

import math

import torch
from torch import Tensor

from spintok_kernels.perturb import cpu, equalizer
from spintok_kernels.perturb import torch as torch_passes
from spintok_kernels.perturb.interpolate import kernels
from spintok_kernels.perturb.tables import (
    LAGS,
    LOW_HOP,
    OCTAVE_COST,
    PITCH_HOP,
    STEPS_PER_OCTAVE,
    half_spectrum,
    low_pass,
    padded_lags,
    smoother,
)

__all__ = ["choose_pitch", "decimate", "equalize", "overlap_add", "pitch_candidates", "samples_per_call"]

# Samples in a call on the CPU beyond which temporaries leave its caches, with torch and with the compiled passes.
TORCH_SAMPLES, COMPILED_SAMPLES = 1 << 19, 1 << 22


def samples_per_call(waveforms: Tensor) -> float:
    """Return the largest number of samples in a call that is efficient on the device of `waveforms`."""
    if waveforms.device.type != "cpu":
        return math.inf
    return COMPILED_SAMPLES if _compiled(waveforms) else TORCH_SAMPLES


def decimate(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Low-pass at 1.4 kHz and keep every fourth sample, in phase: (B, 40 ceil(S / 160)).

    What is past the lengths counts as silence.
    """
    low: Tensor = torch.ops.spintok.decimate(waveforms, lengths)
    return low


def pitch_candidates(low: Tensor) -> tuple[Tensor, Tensor]:
    """Return the strengths of the pitch candidates of every frame and the frames' energies.

    Args:
        low: (B, 40 J), the result of `decimate`; a frame is the 160 samples about the middle of every 40.

    Returns:
        strengths (B, J, 96), of which the first 81 are candidates, and energies (B, J). Candidate i is the frequency
        FLOOR 2^(i / STEPS_PER_OCTAVE). Its strength is the autocorrelation of the windowed frame over that of the
        window (Boersma 1993), plus a small bonus for higher frequencies.
    """
    result: tuple[Tensor, Tensor] = torch.ops.spintok.pitch_candidates(low)
    return result


def choose_pitch(strengths: Tensor, lowest: Tensor, highest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the strongest candidate of every frame, the first of equals.

    Args:
        strengths: (B, J, 96), of `pitch_candidates`.
        lowest, highest: (B,), the range of each utterance in candidates, which need not be whole.

    Returns:
        Three tensors (B, J): the strength, the number of the candidate, and the offset in [-1/2, 1/2] of the top of
        the parabola through it and its neighbours, where candidates outside the range have strength -1.
    """
    result: tuple[Tensor, Tensor, Tensor] = torch.ops.spintok.choose_pitch(strengths, lowest, highest)
    return result


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
) -> Tensor:
    """Place grains of the waveforms at a new pitch, reading each at its utterance's speed.

    Pitch is constant within cells of 80 samples; C = 2 ceil(S / 160).

    Args:
        waveforms, lengths: the utterances.
        low: (B, 20 C), the result of `decimate`.
        old_rate: (B, C), the pitch of the input in cycles a sample.
        new_rate: (B, C), the pitch of the output, at most 950 / 16000.
        voiced: (B, C) bool. A voiced grain is centred on a pulse of `low`; others are not moved.
        narrowing: (B, C, 2), at the two edges of each cell: how many times faster a grain fades than its period.
        overlap: (B, C, 2), from -2 to 0: the sum of two grains with fades a and b is divided by
            sqrt(1 + overlap a b).
        speed: (B,), reading speed over real time.

    Returns:
        (B, S). Samples past the lengths have no meaning.
    """
    result: Tensor = torch.ops.spintok.overlap_add(
        waveforms, lengths, low, old_rate, new_rate, voiced, narrowing, overlap, speed
    )
    return result


def equalize(waveforms: Tensor, gains: Tensor, qs: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Filter the waveforms by a low shelf, eight peaks and a high shelf, from rest.

    Args:
        waveforms: (B, S).
        gains, qs: (B, BANDS), in decibels and as quality factors.
        lengths: where to cut the ringing of the filter: samples past the lengths become 0.

    Returns:
        (B, S).
    """
    result: Tensor = torch.ops.spintok.equalize(waveforms, gains, qs, lengths)
    return result


def _compiled(x: Tensor) -> bool:
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return False
    cpu.PERTURB.warn_if_missing()
    return cpu.PERTURB.choose()[0] != "torch"


torch.library.define("spintok::decimate", "(Tensor waveforms, Tensor lengths) -> Tensor")
torch.library.define("spintok::pitch_candidates", "(Tensor low) -> (Tensor, Tensor)")
torch.library.define(
    "spintok::choose_pitch", "(Tensor strengths, Tensor lowest, Tensor highest) -> (Tensor, Tensor, Tensor)"
)
torch.library.define(
    "spintok::overlap_add",
    "(Tensor waveforms, Tensor lengths, Tensor low, Tensor old_rate, Tensor new_rate, Tensor voiced, "
    "Tensor narrowing, Tensor overlap, Tensor speed) -> Tensor",
)
torch.library.define("spintok::equalize", "(Tensor waveforms, Tensor gains, Tensor qs, Tensor? lengths=None) -> Tensor")


@torch.library.register_fake("spintok::decimate")  # type: ignore[untyped-decorator]
def _(waveforms: Tensor, lengths: Tensor) -> Tensor:
    batch, samples = waveforms.shape
    return waveforms.new_empty(batch, (samples + PITCH_HOP - 1) // PITCH_HOP * LOW_HOP)


@torch.library.impl("spintok::decimate", ("cpu", "cuda"))
def _(waveforms: Tensor, lengths: Tensor) -> Tensor:
    if not _compiled(waveforms):
        return torch_passes.decimate(waveforms, lengths)
    return cpu.decimate(waveforms.contiguous(), _int64(lengths), low_pass().float())


@torch.library.register_fake("spintok::pitch_candidates")  # type: ignore[untyped-decorator]
def _(low: Tensor) -> tuple[Tensor, Tensor]:
    batch, frames = low.shape[0], low.shape[1] // LOW_HOP
    return low.new_empty(batch, frames, LAGS), low.new_empty(batch, frames)


@torch.library.impl("spintok::pitch_candidates", ("cpu", "cuda"))
def _(low: Tensor) -> tuple[Tensor, Tensor]:
    if not _compiled(low):
        return torch_passes.candidates(low)
    return cpu.candidates(low.contiguous(), *half_spectrum(), padded_lags(), OCTAVE_COST / STEPS_PER_OCTAVE)


@torch.library.register_fake("spintok::choose_pitch")  # type: ignore[untyped-decorator]
def _(strengths: Tensor, lowest: Tensor, highest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    best, place, offset = (strengths.new_empty(strengths.shape[:2]) for _ in range(3))
    return best, place, offset


@torch.library.impl("spintok::choose_pitch", ("cpu", "cuda"))
def _(strengths: Tensor, lowest: Tensor, highest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if not _compiled(strengths):
        return torch_passes.choose(strengths, lowest, highest)
    return cpu.choose(strengths.contiguous(), lowest.contiguous(), highest.contiguous())


@torch.library.register_fake("spintok::overlap_add")  # type: ignore[untyped-decorator]
def _(waveforms: Tensor, *_: Tensor) -> Tensor:
    return waveforms.new_empty(waveforms.shape)


@torch.library.impl("spintok::overlap_add", ("cpu", "cuda"))
def _(
    waveforms: Tensor,
    lengths: Tensor,
    low: Tensor,
    old_rate: Tensor,
    new_rate: Tensor,
    voiced: Tensor,
    narrowing: Tensor,
    overlap: Tensor,
    speed: Tensor,
) -> Tensor:
    cells = (low, old_rate, new_rate, voiced, narrowing, overlap, speed)
    if not _compiled(waveforms):
        return torch_passes.overlap_add(waveforms, lengths, *cells)
    weights = kernels(speed).transpose(0, 1).float().contiguous()
    arguments = (waveforms, lengths.to(torch.int64), *cells, weights, smoother(low.device))
    return cpu.overlap_add(*(x.contiguous() for x in arguments))


@torch.library.register_fake("spintok::equalize")  # type: ignore[untyped-decorator]
def _(waveforms: Tensor, gains: Tensor, qs: Tensor, lengths: Tensor | None = None) -> Tensor:
    return waveforms.new_empty(waveforms.shape)


@torch.library.impl("spintok::equalize", ("cpu", "cuda"))
def _(waveforms: Tensor, gains: Tensor, qs: Tensor, lengths: Tensor | None = None) -> Tensor:
    if not _compiled(waveforms):
        filtered = equalizer.equalize(waveforms, gains, qs)
        return filtered if lengths is None else filtered.mul_(torch_passes.valid_samples(waveforms, lengths))
    filtered = cpu.cascade(waveforms.contiguous(), equalizer.sections(gains, qs).contiguous())
    if lengths is not None:
        for row, length in zip(filtered, lengths.tolist(), strict=True):
            row[length:] = 0
    return filtered


def _int64(lengths: Tensor) -> Tensor:
    return lengths.to(torch.int64).contiguous()
