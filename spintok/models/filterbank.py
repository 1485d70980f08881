"""Triangular filters on the mel scale."""

import torch
from torch import Tensor

from spintok.frames import SAMPLE_RATE

__all__ = ["mel_bands"]

_LOWEST_HZ = 20.0


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
