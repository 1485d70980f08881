"""The acoustic parameters between the network and the waveform: spectral envelope, pitch, voicing, aperiodicity.

They are those of WORLD (Morise, Yokomori, Ozawa 2016), at 200 Hz: four vectors for a frame of 20 ms. A vector holds the
mel-cepstrum of the log amplitude envelope (``CEPSTRUM`` coefficients), the natural logarithm of the fundamental
frequency in Hz (continuous through unvoiced speech), the voicing in [0, 1], and the aperiodicity at 3 kHz in decibels.
"""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spintok.frames import SAMPLE_RATE

__all__ = [
    "APERIODICITY",
    "CEPSTRUM",
    "FFT",
    "LOG_F0",
    "PARAMETERS",
    "STEP",
    "VOICING",
    "aperiodicity_basis",
    "cepstrum_of",
    "envelope_basis",
]

STEP = 80  # samples from one vector of parameters to the next: 5 ms
FFT = 1024  # size of the transforms of analysis and synthesis
CEPSTRUM = 40  # coefficients of the envelope
LOG_F0, VOICING, APERIODICITY = CEPSTRUM, CEPSTRUM + 1, CEPSTRUM + 2  # places of the other parameters
PARAMETERS = CEPSTRUM + 3

_BAND = 3000.0  # centre in Hz of the band of WORLD's aperiodicity at 16 kHz


@cache
def envelope_basis() -> Tensor:
    """(CEPSTRUM, FFT // 2 + 1) complex64: times a mel-cepstrum, the log spectrum of the minimum-phase filter.

    The real part is a cosine series over the mel scale, orthonormal there. The imaginary part is the phase that belongs
    to it, by folding the real cepstrum (Oppenheim and Schafer, "Discrete-Time Signal Processing", section 13.5).
    """
    series = _cosines(_mel(np.arange(FFT // 2 + 1) * SAMPLE_RATE / FFT))
    quefrency = np.fft.irfft(series, FFT)
    quefrency[:, 1 : FFT // 2] *= 2
    quefrency[:, FFT // 2 + 1 :] = 0
    return torch.from_numpy(np.fft.rfft(quefrency, FFT)).to(torch.complex64)


@cache
def aperiodicity_basis() -> Tensor:
    """(2, FFT // 2 + 1) float32: [1, parameter] times this is the aperiodicity in decibels of each bin.

    As in D4C (Morise 2016) it is interpolated linearly between -60 dB at 0 Hz, the parameter at 3 kHz, 0 dB at 8 kHz.
    """
    bins = np.arange(FFT // 2 + 1) * SAMPLE_RATE / FFT
    knots = [0.0, _BAND, SAMPLE_RATE / 2]
    rows = [np.interp(bins, knots, values) for values in ([-60.0, 0.0, 0.0], [0.0, 1.0, 0.0])]
    return torch.from_numpy(np.stack(rows)).float()


def cepstrum_of(log_amplitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mel-cepstrum (N, CEPSTRUM) of envelopes (N, FFT // 2 + 1), natural logarithms of amplitudes."""
    points = (np.arange(FFT // 2) + 0.5) / (FFT // 2)
    edges = _mel(np.arange(FFT // 2 + 1) * SAMPLE_RATE / FFT)
    # Values at points that are equally spaced in mel, each interpolated from its two neighbouring bins.
    right = np.searchsorted(edges, points)
    share = (points - edges[right - 1]) / (edges[right] - edges[right - 1])
    values = log_amplitude[:, right - 1] * (1 - share) + log_amplitude[:, right] * share
    return values @ _cosines(points).T / len(points)


def _cosines(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """(CEPSTRUM, N) cosines at N places in [0, 1], with unit mean square over that range."""
    rows = np.cos(np.pi * np.arange(CEPSTRUM)[:, None] * places)
    rows[1:] *= np.sqrt(2)
    return rows


def _mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mel scale (O'Shaughnessy 1987), from 0 at 0 Hz to 1 at 8 kHz."""
    return np.asarray(np.log1p(hertz / 700) / np.log1p(SAMPLE_RATE / 2 / 700))
