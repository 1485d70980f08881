"""Noise, reverberation and band limits for batches of waveforms.

They keep lengths, and padding stays zero. Random draws come from a generator that the caller passes.
"""

import math
from collections.abc import Sequence

import numpy as np
import soxr
import torch
from torch import Tensor
from torch.nn import functional as F

from spintok.frames import SAMPLE_RATE
from spintok.masks import length_mask

__all__ = ["add_noise", "add_reverb", "babble", "band_limit", "colored_noise", "excerpt", "impulse_responses"]

# FFT size of the blocks of a convolution. 32,768 is as fast; one FFT over a whole recording takes six times as long.
_BLOCK = 16_384


def add_noise(waveforms: Tensor, lengths: Tensor, noise: Tensor, snr_db: Tensor) -> Tensor:
    """Add ``noise`` (B, M) to ``waveforms`` (B, S), both float32, at ``snr_db`` (B,) decibels: (B, S).

    Both powers are means over the ``lengths`` (B,) samples of the utterance. Noise shorter than S is repeated. A row is
    unchanged if the utterance or the noise is silent.

    Raises:
        ValueError: the shapes do not match.
    """
    valid = _valid(waveforms, lengths)
    if noise.ndim != 2 or len(noise) != len(waveforms) or noise.shape[1] == 0:
        raise ValueError(f"noise must be ({len(waveforms)}, M) with M > 0, got {tuple(noise.shape)}")
    if snr_db.shape != lengths.shape:
        raise ValueError(f"snr_db must be ({len(waveforms)},), got {tuple(snr_db.shape)}")
    samples = waveforms.shape[1]
    noise = noise.repeat(1, -(-samples // noise.shape[1]))[:, :samples].masked_fill(~valid, 0.0)
    speech = waveforms.masked_fill(~valid, 0.0)
    # Sums instead of means: their denominators cancel.
    wanted = speech.square().sum(1) / torch.pow(10.0, snr_db / 10)
    present = noise.square().sum(1)
    scale = torch.where(present > 0, wanted / present.clamp_min(torch.finfo(noise.dtype).tiny), 0.0).sqrt()
    return speech + scale[:, None] * noise


def add_reverb(waveforms: Tensor, lengths: Tensor, responses: Tensor) -> Tensor:
    """Convolve ``waveforms`` (B, S) with room impulse ``responses`` (B, R), both float32: (B, S).

    A response is shifted so that its largest sample, the direct sound, causes no delay, and scaled to unit energy so
    that the level stays about the same. Reverberation after the end of the utterance, ``lengths`` (B,), is cut off.

    Raises:
        ValueError: the shapes do not match.
    """
    valid = _valid(waveforms, lengths)
    if responses.ndim != 2 or len(responses) != len(waveforms) or responses.shape[1] == 0:
        raise ValueError(f"responses must be ({len(waveforms)}, R) with R > 0, got {tuple(responses.shape)}")
    batch, samples = waveforms.shape
    if waveforms.numel() == 0:
        return waveforms.clone()
    scale = responses.square().sum(1, keepdim=True).clamp_min(torch.finfo(responses.dtype).tiny).rsqrt()
    wet = _convolve(waveforms.masked_fill(~valid, 0.0), responses * scale)
    delay = responses.abs().argmax(1, keepdim=True)
    wet = wet.gather(1, delay + torch.arange(samples, device=wet.device).expand(batch, -1))
    return torch.where(valid, wet, 0.0)


def babble(voices: Sequence[Tensor]) -> Tensor:
    """The sum (S,) of several ``voices``, each (S,) float32, scaled to equal power first."""
    return torch.stack([voice / voice.square().mean().sqrt().clamp_min(1e-8) for voice in voices]).sum(0)


def excerpt(waveform: Tensor, samples: int, rng: np.random.Generator) -> Tensor:
    """``samples`` samples of a waveform (S,) from a random start; the waveform is repeated as often as needed."""
    start = int(rng.integers(len(waveform)))
    return waveform.repeat(-(-(start + samples) // len(waveform)))[start : start + samples]


def band_limit(waveform: Tensor, top: float) -> Tensor:
    """A waveform (S,), float32 at 16 kHz, low-passed at ``top`` Hz by resampling there and back: (S,)."""
    low = soxr.resample(waveform.numpy(), SAMPLE_RATE, 2 * top, quality="HQ")
    back = torch.from_numpy(soxr.resample(low, 2 * top, SAMPLE_RATE, quality="HQ"))
    return F.pad(back, (0, max(0, len(waveform) - len(back))))[: len(waveform)]


def colored_noise(rng: np.random.Generator, batch: int, samples: int, slope: float = 0.0) -> Tensor:
    """Gaussian noise (``batch``, ``samples``), float32, of unit power.

    Its power spectrum is f ** -``slope``: 0 is white, 1 pink, 2 brown. It is flat below 20 Hz.
    """
    if samples == 0:
        return torch.zeros(batch, 0)
    size = _fast_size(samples)
    # The spectrum of white noise is independent and Gaussian, so it is drawn directly.
    drawn = rng.standard_normal((batch, size // 2 + 1, 2), dtype=np.float32)
    spectrum = torch.view_as_complex(torch.from_numpy(drawn))
    frequency = torch.fft.rfftfreq(size, 1 / SAMPLE_RATE).clamp_min(20.0)
    colored: Tensor = torch.fft.irfft(spectrum * frequency.pow(-slope / 2), size)[:, :samples]
    return colored / colored.square().mean(1, keepdim=True).sqrt().clamp_min(torch.finfo(colored.dtype).tiny)


def impulse_responses(rng: np.random.Generator, rt60: Tensor, direct_db: float = 0.0) -> Tensor:
    """Impulse responses (B, R), float32, of synthetic rooms with reverberation times ``rt60`` (B,) in seconds.

    R is the longest of the times. Sample 0 is the direct sound. Gaussian noise follows, decaying by 60 dB in ``rt60``;
    the direct sound has ``direct_db`` decibels more energy than the noise.

    Raises:
        ValueError: a time is not positive.
    """
    if rt60.ndim != 1 or not (rt60 > 0).all():
        raise ValueError(f"rt60 must be (B,) positive seconds, got {rt60.tolist()}")
    size = math.ceil(float(rt60.max()) * SAMPLE_RATE)
    noise = torch.from_numpy(rng.standard_normal((len(rt60), size), dtype=np.float32))
    time = torch.arange(size) / SAMPLE_RATE
    tail = noise * torch.pow(10.0, -3 * time / rt60[:, None])
    tail[:, 0] = 0.0
    direct = tail.square().sum(1).sqrt() * 10 ** (direct_db / 20)
    tail[:, 0] = direct.clamp_min(torch.finfo(tail.dtype).tiny)
    return tail


def _convolve(waveforms: Tensor, responses: Tensor) -> Tensor:
    """Convolve (B, S) with (B, R) to (B, S + R - 1) by overlap-add, in blocks that fit into the cache."""
    (batch, samples), taps = waveforms.shape, responses.shape[1]
    length = samples + taps - 1
    size = max(_BLOCK, 1 << (2 * taps - 1).bit_length())
    if length <= size:
        size = _fast_size(length)
        spectrum = torch.fft.rfft(waveforms, size) * torch.fft.rfft(responses, size)
        whole: Tensor = torch.fft.irfft(spectrum, size)[:, :length]
        return whole
    step = size - taps + 1
    blocks = -(-samples // step)
    spectra = torch.fft.rfft(F.pad(waveforms, (0, blocks * step - samples)).view(batch, blocks, step), size)
    parts = torch.fft.irfft(spectra * torch.fft.rfft(responses, size)[:, None], size)
    out = F.pad(parts[..., :step], (0, 0, 0, 1))
    # The overlap of a block is no longer than the next block.
    out[:, 1:, : taps - 1] += parts[..., step:]
    return out.flatten(1)[:, :length]


def _fast_size(samples: int) -> int:
    """The smallest size from ``samples`` on without a prime factor above 5, for which FFTs are fast."""
    best = 1 << (samples - 1).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            best = min(best, three << (-(-samples // three) - 1).bit_length())
            three *= 3
        five *= 5
    return best


def _valid(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """(B, S) True inside the utterances; ``ValueError`` when the two do not fit."""
    if waveforms.ndim != 2 or lengths.shape != waveforms.shape[:1]:
        raise ValueError(
            f"need waveforms (B, S) and lengths (B,), got {tuple(waveforms.shape)} and {tuple(lengths.shape)}"
        )
    return length_mask(lengths, waveforms.shape[1])
