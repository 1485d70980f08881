"""Constants and tables of the pitch tracker and of overlap-add, which the torch and the compiled code share."""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "ALIGNMENT",
    "BINS",
    "CANDIDATES",
    "CELL",
    "DECIMATION",
    "FLOOR",
    "HIGHEST",
    "LAGS",
    "LOW_HOP",
    "MARKS",
    "OCTAVE_COST",
    "PITCH_HOP",
    "SAMPLE_RATE",
    "STEPS_PER_OCTAVE",
    "UNVOICED_PERIOD",
    "WINDOW",
    "decimator",
    "half_spectrum",
    "lags",
    "low_pass",
    "padded_lags",
    "smoother",
    "spectrum",
]

SAMPLE_RATE = 16_000
PITCH_HOP = 160  # samples between pitch frames: 10 ms
DECIMATION = 4  # the pitch tracker uses frequencies below 2 kHz
LOW_RATE = SAMPLE_RATE // DECIMATION
LOW_HOP = PITCH_HOP // DECIMATION
WINDOW = 160  # samples at LOW_RATE: 40 ms, at least 2.4 periods of the lowest voice
DFT_SIZE = 256  # window + longest lag fit, so the circular autocorrelation is the linear one
BINS = 64  # of the spectrum, up to 1 kHz: the fundamental and enough harmonics
FLOOR, CEILING = 60.0, 600.0  # hertz
STEPS_PER_OCTAVE = 24
CANDIDATES = round(STEPS_PER_OCTAVE * math.log2(CEILING / FLOOR)) + 1
LAGS = CANDIDATES + 1 + -(CANDIDATES + 1) % 16  # columns of `padded_lags` and of candidate strengths
OCTAVE_COST = 0.02  # a small preference for the higher of two equal candidates, per octave

CELL = PITCH_HOP // 2  # samples in which the pitch is constant
HIGHEST = 950.0  # hertz, the limit of the new pitch
MARKS = math.ceil(CELL * HIGHEST / SAMPLE_RATE)  # the largest number of grains that begin in a cell
UNVOICED_PERIOD = 160  # samples between grains without pitch
ALIGNMENT = 9  # cells over which the position of the glottal pulses is averaged


def _window() -> Tensor:
    return torch.hann_window(WINDOW + 1, periodic=False, dtype=torch.float64)[:WINDOW]


@lru_cache(maxsize=1)
def low_pass() -> Tensor:
    """Return the low-pass of the decimator, (49,) float64, centred on the sample that is kept."""
    half = 24
    time = torch.arange(-half, half + 1, dtype=torch.float64)
    cutoff = 2 * 1400 / SAMPLE_RATE
    kernel = cutoff * torch.sinc(cutoff * time) * torch.hann_window(2 * half + 3, False, dtype=torch.float64)[1:-1]
    return kernel / kernel.sum()


@lru_cache(maxsize=8)
def spectrum(device: torch.device) -> Tensor:
    """Return (WINDOW, 2 * BINS): from a frame to the real and imaginary spectrum of the windowed frame without mean.

    For so few bins a matrix product is faster than the FFT, and it includes the mean and the window.
    """
    time = torch.arange(WINDOW, dtype=torch.float64)
    angle = 2 * math.pi / DFT_SIZE * time[:, None] * torch.arange(BINS, dtype=torch.float64)
    matrix = torch.cat([torch.cos(angle), torch.sin(angle)], 1) * _window()[:, None]
    return (matrix - matrix.mean(0)).float().to(device)


@lru_cache(maxsize=1)
def half_spectrum() -> tuple[Tensor, Tensor]:
    """Return the second halves of the windowed cosines and sines, (WINDOW / 2, BINS) each.

    About the middle of the window the cosines are even and the sines odd.
    """
    time = torch.arange(WINDOW // 2, dtype=torch.float64)
    angle = 2 * math.pi / DFT_SIZE * time[:, None] * torch.arange(BINS, dtype=torch.float64)
    window = _window()[WINDOW // 2 :, None]
    return (torch.cos(angle) * window).float(), (torch.sin(angle) * window).float()


@lru_cache(maxsize=8)
def lags(device: torch.device) -> Tensor:
    """Return (2 * BINS, CANDIDATES + 1): from the squared spectrum to the autocorrelation over that of the window.

    The last column is lag 0.
    """
    steps = torch.arange(CANDIDATES, dtype=torch.float64) / STEPS_PER_OCTAVE
    lags = torch.cat([LOW_RATE / (FLOOR * torch.exp2(steps)), torch.zeros(1, dtype=torch.float64)])
    bins = torch.arange(DFT_SIZE // 2 + 1, dtype=torch.float64)
    matrix = 2 * torch.cos(2 * math.pi / DFT_SIZE * bins[:, None] * lags)
    matrix[0] /= 2
    window_correlation = torch.fft.rfft(_window(), DFT_SIZE).abs().square() @ matrix
    matrix = matrix[:BINS] * (window_correlation[-1] / window_correlation)
    return torch.cat([matrix, matrix]).float().to(device)


@lru_cache(maxsize=1)
def padded_lags() -> Tensor:
    """Return the rows of `lags` for the power spectrum, (BINS, LAGS), padded to whole vectors."""
    return F.pad(lags(torch.device("cpu"))[:BINS], (0, LAGS - CANDIDATES - 1)).contiguous()


@lru_cache(maxsize=8)
def decimator(device: torch.device, block: int) -> tuple[int, Tensor]:
    """Return the length of the low-pass and the matrix (block + length, block / 4) that filters a block."""
    kernel = low_pass()
    length = len(kernel) - 1
    matrix = torch.zeros(block + length, block // DECIMATION, dtype=torch.float64)
    for column in range(block // DECIMATION):
        matrix[column * DECIMATION : column * DECIMATION + length + 1, column] = kernel
    return length, matrix.float().to(device)


@lru_cache(maxsize=8)
def smoother(device: torch.device) -> Tensor:
    """Return the weights (ALIGNMENT,) that average the position of the pulses over cells."""
    return torch.hann_window(ALIGNMENT + 2, periodic=False, device=device)[1:-1]
