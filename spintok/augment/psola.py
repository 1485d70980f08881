"""Resynthesise a batch by pitch-synchronous overlap-add: new pitch and new formants at the old speed.

Every period of the output is a grain of the input, read faster or slower to move the formants and placed at the new
pitch (Moulines and Charpentier 1990; the method of Praat's "Change gender"). Pitch is constant within cells of 5 ms.
"""

import torch
import torch.nn.functional as F
from spintok_kernels.perturb import HIGHEST, UNVOICED_PERIOD, overlap_add
from torch import Tensor

from spintok.augment.pitch import PitchTrack
from spintok.frames import SAMPLE_RATE

__all__ = ["resynthesize"]

LOWEST = 40.0  # hertz, the lowest new pitch
COHERENCE = 2.0  # samples by which noise must be displaced to lose its correlation


def resynthesize(
    waveforms: Tensor,
    lengths: Tensor,
    low: Tensor,
    track: PitchTrack,
    formant: Tensor,
    median: Tensor,
    spread: Tensor,
) -> Tensor:
    """Change the pitch and the formants of waveforms (B, S); samples past the lengths (B,) have no meaning.

    ``low`` is the result of ``spintok_kernels.perturb.decimate``; ``formant``, ``median`` and ``spread`` are ratios
    (B,). As in Praat, the new pitch is M + (r f0 - M) s with the new median M = r m, the median ratio r and the range
    ratio s. It is limited to LOWEST and HIGHEST.
    """
    f0, voiced = _cells(track)
    middle = (track.median * median)[:, None]
    new_f0 = (middle + (f0 * median[:, None] - middle) * spread[:, None]).clamp(LOWEST, HIGHEST)
    # Rates are in cycles a sample.
    old_rate = f0 / SAMPLE_RATE
    new_rate = torch.where(voiced, new_f0 / SAMPLE_RATE, 1 / UNVOICED_PERIOD)
    # A grain is as wide as its own period, so a lower pitch leaves gaps between the pulses instead of echoes.
    narrowing = torch.where(voiced, old_rate * formant[:, None] / new_rate, 1.0).clamp_min(1.0)
    # In noise the powers of two overlapping grains add up, not their amplitudes.
    displacement = (1 - formant[:, None]) * UNVOICED_PERIOD / COHERENCE
    noise = -2 * (1 - torch.exp(-displacement.square()))
    narrow, overlap = _edges(narrowing, torch.ones_like(noise)), _edges(torch.where(voiced, 0.0, noise), noise)
    return overlap_add(waveforms, lengths, low, old_rate, new_rate, voiced, narrow, overlap, formant)


def _cells(track: PitchTrack) -> tuple[Tensor, Tensor]:
    """Return pitch and voicing (B, 2 J) of the cells, two a frame; pitch is interpolated between voiced frames."""
    f0, voiced = track.f0, track.voiced
    before = F.pad(f0, (1, 0))[:, :-1].where(F.pad(voiced, (1, 0))[:, :-1], f0)
    after = F.pad(f0, (0, 1))[:, 1:].where(F.pad(voiced, (0, 1))[:, 1:], f0)
    f0 = torch.stack([0.25 * before + 0.75 * f0, 0.75 * f0 + 0.25 * after], -1).flatten(1)
    return f0, voiced.repeat_interleave(2, 1)


def _edges(values: Tensor, beyond: Tensor) -> Tensor:
    """Interpolate values of cells (B, C), and of those past the end (B, 1), at the two edges of each: (B, C, 2)."""
    padded = torch.cat([values[:, :1], values, beyond], 1)
    edges = (padded[:, 1:] + padded[:, :-1]) / 2
    return torch.stack([edges[:, :-1], edges[:, 1:]], -1)
