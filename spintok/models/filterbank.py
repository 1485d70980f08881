"""Kaldi's filter bank: windows of samples, and triangular filters on the mel scale."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from spintok.frames import SAMPLE_RATE

__all__ = ["kaldi_frames", "mel_bands", "povey_window"]

_LOWEST_HZ = 20.0
_WINDOW = 400  # samples


def mel_bands(bands: int, fft: int) -> Tensor:
    """Kaldi's mel filters, from 20 Hz to half the sample rate: (fft / 2 + 1, bands) float32.

    The triangles are straight lines on the mel scale, 1127 ln(1 + f / 700).
    """

    def mel(hertz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    ends = mel(torch.tensor([_LOWEST_HZ, SAMPLE_RATE / 2], dtype=torch.float64))
    edges = torch.linspace(float(ends[0]), float(ends[1]), bands + 2, dtype=torch.float64)
    bins = mel(torch.arange(fft // 2 + 1, dtype=torch.float64) * (SAMPLE_RATE / fft))[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    triangles = torch.minimum(rising, falling).clamp(min=0)
    # Kaldi leaves out the bin at half the sample rate.
    triangles[-1] = 0
    return triangles.float()


def povey_window() -> Tensor:
    """Kaldi's window for 25 ms: (400,) float64."""
    phase = torch.arange(_WINDOW, dtype=torch.float64) * (2 * math.pi / (_WINDOW - 1))
    return (0.5 - 0.5 * phase.cos()).pow(0.85)


def kaldi_frames(frames: Tensor, window: Tensor) -> Tensor:
    """Frames of samples (B, T, S) without their mean, with pre-emphasis 0.97, times a ``window`` (S,)."""
    frames = frames - frames.mean(dim=2, keepdim=True)
    # The first sample has no predecessor; Kaldi uses the sample itself.
    previous = F.pad(frames, (1, 0), mode="replicate")[:, :, :-1]
    return (frames - 0.97 * previous) * window
