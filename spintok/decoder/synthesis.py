"""Acoustic parameters to a waveform: pulses and noise through a minimum-phase filter, piece by piece.

Source-filter synthesis as in WORLD (Morise et al. 2016), except that the result does not depend on how the input is cut
into pieces: the periodic source is a closed-form sum of all harmonics below 8 kHz, whose only state is its phase, and
the noise is a function of the index of the sample. Segments of 10 ms of the source, under overlapping Hann windows that
add up to 1, each pass through the filter of their vector of parameters.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import fold

from spintok.decoder.acoustics import (
    APERIODICITY,
    CEPSTRUM,
    FFT,
    LOG_F0,
    PARAMETERS,
    STEP,
    VOICING,
    aperiodicity_basis,
    envelope_basis,
)
from spintok.frames import SAMPLE_RATE

__all__ = ["Synthesizer", "synthesize"]

_LOWEST, _HIGHEST = 50.0, 800.0  # bounds of the fundamental frequency in Hz
_LOUDEST = 5.0  # bound of a log amplitude, far above that of speech
_LINEAR = 0.7  # samples beyond this are compressed towards 1


def synthesize(parameters: Tensor, length: int) -> Tensor:
    """The waveform (length,) float32 in (-1, 1) of parameters (N, PARAMETERS).

    Vector ``i`` belongs to sample ``STEP * (i + 1)``; the first and the last are held beyond that. The same parameters
    give the same waveform, noise included.
    """
    synthesizer = Synthesizer()
    return torch.cat([synthesizer.push(parameters), synthesizer.close(length)])


class Synthesizer:
    """``synthesize`` for parameters that come in pieces: 10 ms after a vector its samples are complete."""

    def __init__(self) -> None:
        # The last two vectors. A vector in front of the first one, equal to it, opens the recording.
        self._vectors = torch.zeros(0, PARAMETERS)
        self._step = 0  # number of steps whose source has been computed
        self._phase = 0.0  # of the periodic source, in periods
        self._source = torch.zeros(2, STEP)  # periodic and noise, of the last step
        self._tail = torch.zeros(FFT - STEP)  # what earlier segments add to the samples to come

    def push(self, parameters: Tensor) -> Tensor:
        """The next samples, for the next parameters (N, PARAMETERS)."""
        parameters = parameters.float().cpu()
        if len(parameters) and not len(self._vectors):
            parameters = torch.cat([parameters[:1], parameters])
        self._vectors = torch.cat([self._vectors, parameters])
        return self._advance()

    def close(self, length: int) -> Tensor:
        """The last samples, so that there are ``length`` in all: at least ``STEP * N``, for N vectors."""
        if not len(self._vectors):
            return torch.zeros(0)
        done = max(0, self._step - 1) * STEP
        self._vectors = torch.cat([self._vectors, self._vectors[-1:].repeat(-(-(length - done) // STEP) + 1, 1)])
        return self._advance()[: length - done]

    def _advance(self) -> Tensor:
        """The samples of all steps that are complete.

        Step ``s`` lies between vectors ``s`` and ``s + 1``, whose pitch it interpolates. Segment ``s`` is made of the
        steps ``s - 1`` and ``s`` and passes through the filter of vector ``s``.
        """
        count = len(self._vectors) - 1
        if count < 1:
            return torch.zeros(0)
        source = self._make_source(self._vectors[:, LOG_F0])
        halves = torch.cat([self._source[:, None], source], 1)
        segments = torch.cat([halves[:, :-1], halves[:, 1:]], 2) * _WINDOW
        filtered = self._filter(segments, self._vectors[:-1])
        self._source = source[:, -1]
        self._vectors = self._vectors[-1:]
        first = self._step == 0
        self._step += count
        samples = self._overlap_add(filtered)
        # Segment 0 begins one step before the recording.
        return _compress(samples[STEP:] if first else samples)

    def _make_source(self, log_f0: Tensor) -> Tensor:
        """Both sources (2, N, STEP) of the N steps between N + 1 vectors of log F0."""
        f0 = log_f0.double().exp().clamp(_LOWEST, _HIGHEST)
        share = torch.arange(STEP, dtype=torch.float64) / STEP
        f0 = f0[:-1, None] * (1 - share) + f0[1:, None] * share
        begin = torch.tensor([self._phase], dtype=torch.float64)
        phase = torch.cumsum(torch.cat([begin, f0.flatten() / SAMPLE_RATE]), 0)
        self._phase = float(phase[-1] % 1)
        phase = phase[:-1].view_as(f0) % 1
        first = self._step * STEP
        noise = _noise(first, f0.numel()).view_as(f0)
        return torch.stack([_harmonics(phase, f0), noise]).float()

    @staticmethod
    def _filter(segments: Tensor, vectors: Tensor) -> Tensor:
        """Segments (2, N, 2 * STEP) of both sources through the filters of N vectors: (N, FFT)."""
        basis = envelope_basis()
        cepstrum = vectors[:, :CEPSTRUM]
        # The real and the imaginary part apart: faster than complex arithmetic.
        amplitude = (cepstrum @ basis.real).clamp_(max=_LOUDEST).exp_()
        filters = torch.polar(amplitude, cepstrum @ basis.imag)
        low, rise = aperiodicity_basis()
        decibels = low + vectors[:, APERIODICITY, None].clamp(-60, 0) * rise
        # A ramp instead of a threshold: a small change of a parameter makes a small change of the sound.
        voiced = (5 * vectors[:, VOICING, None] - 2).clamp(0, 1)
        periodic = voiced * (1 - torch.exp(decibels * (math.log(10) / 10)))
        spectrum, noise = torch.fft.rfft(segments, FFT)
        mixed = periodic.sqrt() * spectrum + (1 - periodic).sqrt() * noise
        filtered: Tensor = torch.fft.irfft(mixed.mul_(filters), FFT)
        return filtered

    def _overlap_add(self, filtered: Tensor) -> Tensor:
        """The next N * STEP samples, from N segments (N, FFT)."""
        length = (len(filtered) - 1) * STEP + FFT
        samples: Tensor = fold(filtered.T[None], (length, 1), (FFT, 1), stride=(STEP, 1)).flatten()
        samples[: len(self._tail)] += self._tail
        self._tail = samples[len(filtered) * STEP :].clone()
        return samples[: len(filtered) * STEP]


_WINDOW = torch.hann_window(2 * STEP)


def _harmonics(phase: Tensor, f0: Tensor) -> Tensor:
    """The sum of the harmonics of ``f0`` in Hz below 8 kHz, at ``phase`` in periods, with unit power.

    The closed form of the sum of cosines is Dirichlet's kernel. The harmonic above the last one fades in, so that the
    sum is continuous in f0.
    """
    count = SAMPLE_RATE / 2 / f0
    whole = count.floor()
    angle = math.pi * phase
    # At a multiple of the period the quotient is 0 / 0, and its limit is 2 * whole + 1.
    near = angle.sin().abs() < 1e-9
    quotient = ((2 * whole + 1) * angle).sin() / torch.where(near, 1, angle.sin())
    kernel = torch.where(near, 2 * whole + 1, quotient)
    total = (kernel - 1) / 2 + (count - whole) * (2 * (whole + 1) * angle).cos()
    return total * 2 * (f0 / SAMPLE_RATE).sqrt()


def _noise(first: int, count: int) -> Tensor:
    """White noise (count,) float64 of unit power: a hash (SplitMix64) of the indices of the samples."""
    z = np.arange(first, first + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    uniform = (z ^ (z >> np.uint64(31))) >> np.uint64(11)
    return torch.from_numpy((uniform.astype(np.float64) * 2.0**-52 - 1) * math.sqrt(3))


def _compress(samples: Tensor) -> Tensor:
    """Samples in (-1, 1): unchanged up to ``_LINEAR``, and beyond it compressed smoothly, sample by sample."""
    room = 1 - _LINEAR
    beyond = samples.abs() - _LINEAR
    return torch.where(beyond > 0, samples.sign() * (_LINEAR + room * torch.tanh(beyond / room)), samples)
