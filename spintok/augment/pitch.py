"""Fundamental frequency of a batch of waveforms, all frames of all utterances at once.

The strength of a candidate is the autocorrelation of a windowed frame over that of the window (Boersma 1993,
"Accurate short-term analysis of the fundamental frequency"). It is read from the frame's power spectrum by
one matrix product, at lags that are even on a logarithmic frequency scale. Two passes make it robust without
a search along time: the first finds the speaker's range, the second looks only there (De Looze and Hirst
2008, floor 0.75 Q1 and ceiling 1.5 Q3).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from spintok_kernels import perturb_native
from torch import Tensor

from spintok.frames import SAMPLE_RATE

__all__ = ["DECIMATION", "PITCH_HOP", "PitchTrack", "decimate", "track_pitch"]

PITCH_HOP = 160  # samples from one pitch frame to the next: 10 ms
DECIMATION = 4  # the tracker hears up to 2 kHz
LOW_RATE = SAMPLE_RATE // DECIMATION
WINDOW = 160  # samples at LOW_RATE: 40 ms, at least 2.4 periods of the lowest voice
DFT_SIZE = 256  # window + longest lag fit, so the circular autocorrelation is the linear one
BINS = 64  # of the spectrum, up to 1 kHz: the fundamental and enough harmonics
FLOOR, CEILING = 60.0, 600.0  # hertz
STEPS_PER_OCTAVE = 24
CANDIDATES = round(STEPS_PER_OCTAVE * math.log2(CEILING / FLOOR)) + 1
VOICING_THRESHOLD = 0.55
SILENCE_THRESHOLD = 0.03  # of the loudest frame's amplitude
OCTAVE_COST = 0.02  # a small preference for the higher of two equal candidates, per octave


@dataclass(frozen=True)
class PitchTrack:
    """Pitch frame j is centred on sample ``PITCH_HOP * j + PITCH_HOP // 2``.

    ``f0``: (B, J) hertz, positive everywhere, meaningful where ``voiced``; ``voiced``: (B, J) bool;
    ``median``: (B,) hertz over the voiced frames, 0 where nothing is voiced.
    """

    f0: Tensor
    voiced: Tensor
    median: Tensor


def track_pitch(low: Tensor, lengths: Tensor) -> PitchTrack:
    """Track the pitch of ``low`` (B, S // 4), the output of ``decimate``; ``lengths`` (B,) counts 16 kHz
    samples.

    J = ceil(S / PITCH_HOP) frames. Frames that begin after an utterance's end are unvoiced.
    """
    strength, energy = _candidates(low)
    frame = torch.arange(energy.shape[1], device=low.device)
    inside = frame * PITCH_HOP < lengths[:, None]
    loud = inside & (energy > SILENCE_THRESHOLD**2 * energy.amax(1, keepdim=True))

    # First pass: the speaker's range, from the frames that are surely voiced.
    lowest, highest = low.new_zeros(len(low)), low.new_full((len(low),), CANDIDATES - 1)
    best, index, _ = _choose(strength, lowest, highest)
    low_quartile, _, high_quartile = _quartiles(index, loud & (best > 0.6), CANDIDATES / 2)
    lowest = low_quartile + STEPS_PER_OCTAVE * math.log2(0.75)
    highest = high_quartile + STEPS_PER_OCTAVE * math.log2(1.5)

    # Second pass.
    best, index, offset = _choose(strength, lowest, highest)
    voiced = _open(loud & (best > VOICING_THRESHOLD), 3)
    # Past an utterance's end its last frame is repeated, as before its begin the first is.
    last = (inside.sum(1, keepdim=True) - 1).clamp_min(0)
    position = _median_of_five((index + offset).gather(1, frame.minimum(last)))
    f0 = FLOOR * torch.exp2(position / STEPS_PER_OCTAVE)
    _, median, _ = _quartiles(f0, voiced, 0.0)
    return PitchTrack(f0, voiced, median)


def decimate(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Low-pass (B, S) at 1.4 kHz and keep every fourth sample, in phase: (B, 40 ceil(S / PITCH_HOP)).

    Where nothing is compiled S must be a multiple of PITCH_HOP and what lies past the ``lengths`` (B,) silent.
    """
    if perturb_native.runs_on(waveforms):
        return perturb_native.decimate(waveforms, lengths, _low_pass().float())
    block = 64
    kernel, matrix = _decimator(waveforms.device, block)
    batch, samples = waveforms.shape
    tail = -samples % block
    side = kernel // 2
    blocks = F.pad(waveforms, (side, side + tail)).unfold(1, block + kernel, block)
    low = (blocks @ matrix).reshape(batch, -1)
    return low[:, : samples // DECIMATION]


def _candidates(low: Tensor) -> tuple[Tensor, Tensor]:
    """Strengths of the candidates (B, J, CANDIDATES or more) and energies (B, J) of the frames."""
    bonus = OCTAVE_COST / STEPS_PER_OCTAVE
    if perturb_native.runs_on(low):
        return perturb_native.candidates(low, *_half_spectrum(), _padded_lags(), bonus)
    hop = PITCH_HOP // DECIMATION
    side = (WINDOW - hop) // 2
    frames = F.pad(low, (side, side)).unfold(1, WINDOW, hop)
    correlation = (frames @ _spectrum(low.device)).square_() @ _lags(low.device)
    energy = correlation[..., -1]
    strength = correlation[..., :-1] / energy.clamp_min(torch.finfo(low.dtype).tiny)[..., None]
    return strength + bonus * torch.arange(CANDIDATES, device=low.device), energy


def _choose(strength: Tensor, lowest: Tensor, highest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best strength, its index and its parabola's offset (B, J), of the candidates in a row's range (B,)."""
    if perturb_native.runs_on(strength):
        return perturb_native.choose(strength, lowest, highest)
    grid = torch.arange(CANDIDATES, device=strength.device, dtype=strength.dtype)
    outside = (grid < lowest[:, None]) | (grid > highest[:, None])
    strength = strength.masked_fill(outside[:, None], -1.0)
    best, index = strength.max(-1)
    return best, index.to(strength.dtype), _parabola(strength, index)


def _quartiles(values: Tensor, mask: Tensor, default: float) -> tuple[Tensor, Tensor, Tensor]:
    """The three quartiles (nearest rank) of the masked values of each row; ``default`` where a row has
    none."""
    ordered = values.masked_fill(~mask, math.inf).sort(-1).values
    count = mask.sum(-1, keepdim=True)
    ranks = torch.cat([(count - 1).clamp_min(0) * quarter // 4 for quarter in (1, 2, 3)], -1)
    picked = ordered.gather(-1, ranks)
    picked = torch.where(count > 0, picked, torch.full_like(picked, default))
    return picked[:, 0], picked[:, 1], picked[:, 2]


def _parabola(strength: Tensor, index: Tensor) -> Tensor:
    """The top of the parabola through a peak and its neighbours, as an offset in [-1/2, 1/2] steps."""
    centre = index.clamp(1, CANDIDATES - 2)[..., None]
    left, middle, right = strength.gather(-1, torch.cat([centre - 1, centre, centre + 1], -1)).unbind(-1)
    curvature = (left - 2 * middle + right).clamp_max(-1e-6)
    return (0.5 * (left - right) / curvature).clamp(-0.5, 0.5)


def _median_of_five(values: Tensor) -> Tensor:
    """The median of every number of a row (B, J), its two neighbours before and its two after."""
    padded = F.pad(values[:, None], (2, 2), mode="replicate")[:, 0]
    a, b, c, d, e = padded.unfold(1, values.shape[1], 1).unbind(1)
    # Of the lower of two, the higher, and of the higher the lower: one of these or the fifth is the middle.
    low, high = a.minimum(b).maximum(c.minimum(d)), a.maximum(b).minimum(c.maximum(d))
    return low.minimum(high).maximum(low.maximum(high).minimum(e))


def _open(mask: Tensor, width: int) -> Tensor:
    """Drop runs of True that are shorter than ``width`` (odd)."""
    values = mask.to(torch.float32)[:, None]
    kept = 1 - F.max_pool1d(F.pad(1 - values, (width // 2, width // 2), value=1.0), width, 1)
    return F.max_pool1d(F.pad(kept, (width // 2, width // 2)), width, 1)[:, 0] > 0.5


def _window() -> Tensor:
    return torch.hann_window(WINDOW + 1, periodic=False, dtype=torch.float64)[:WINDOW]


@lru_cache(maxsize=1)
def _low_pass() -> Tensor:
    """The decimator's kernel, float64, its middle on the sample that is kept."""
    half = 24
    time = torch.arange(-half, half + 1, dtype=torch.float64)
    cutoff = 2 * 1400 / SAMPLE_RATE
    kernel = cutoff * torch.sinc(cutoff * time) * torch.hann_window(2 * half + 3, False, dtype=torch.float64)[1:-1]
    return kernel / kernel.sum()


@lru_cache(maxsize=8)
def _spectrum(device: torch.device) -> Tensor:
    """(WINDOW, 2 * BINS): a frame -> real and imaginary spectrum of the windowed frame without its mean.

    For so few bins a matrix product beats the FFT, and it takes the mean and the window in the same pass.
    """
    time = torch.arange(WINDOW, dtype=torch.float64)
    angle = 2 * math.pi / DFT_SIZE * time[:, None] * torch.arange(BINS, dtype=torch.float64)
    matrix = torch.cat([torch.cos(angle), torch.sin(angle)], 1) * _window()[:, None]
    return (matrix - matrix.mean(0)).float().to(device)


@lru_cache(maxsize=1)
def _half_spectrum() -> tuple[Tensor, Tensor]:
    """(WINDOW / 2, BINS) each: the window's cosines and sines from its middle on, where both are even or odd."""
    time = torch.arange(WINDOW // 2, dtype=torch.float64)
    angle = 2 * math.pi / DFT_SIZE * time[:, None] * torch.arange(BINS, dtype=torch.float64)
    window = _window()[WINDOW // 2 :, None]
    return (torch.cos(angle) * window).float(), (torch.sin(angle) * window).float()


@lru_cache(maxsize=1)
def _padded_lags() -> Tensor:
    """The part of ``_lags`` for the power spectrum, with columns for whole vectors."""
    return F.pad(_lags(torch.device("cpu"))[:BINS], (0, -(CANDIDATES + 1) % 16)).contiguous()


@lru_cache(maxsize=8)
def _lags(device: torch.device) -> Tensor:
    """(2 * BINS, CANDIDATES + 1): squared spectrum -> autocorrelation over the window's; the last is lag
    0."""
    steps = torch.arange(CANDIDATES, dtype=torch.float64) / STEPS_PER_OCTAVE
    lags = torch.cat([LOW_RATE / (FLOOR * torch.exp2(steps)), torch.zeros(1, dtype=torch.float64)])
    bins = torch.arange(DFT_SIZE // 2 + 1, dtype=torch.float64)
    matrix = 2 * torch.cos(2 * math.pi / DFT_SIZE * bins[:, None] * lags)
    matrix[0] /= 2
    window_correlation = torch.fft.rfft(_window(), DFT_SIZE).abs().square() @ matrix
    matrix = matrix[:BINS] * (window_correlation[-1] / window_correlation)
    return torch.cat([matrix, matrix]).float().to(device)


@lru_cache(maxsize=8)
def _decimator(device: torch.device, block: int) -> tuple[int, Tensor]:
    """Length of the low-pass and the (block + length, block / 4) matrix that filters a block and drops
    samples."""
    kernel = _low_pass()
    length = len(kernel) - 1
    matrix = torch.zeros(block + length, block // DECIMATION, dtype=torch.float64)
    for column in range(block // DECIMATION):
        matrix[column * DECIMATION : column * DECIMATION + length + 1, column] = kernel
    return length, matrix.float().to(device)
