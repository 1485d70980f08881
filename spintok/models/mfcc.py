"""MFCC features on HuBERT's frames: the input of HuBERT's first K-means, and spintok's smallest encoder.

Kaldi's recipe (25 ms Povey windows, pre-emphasis 0.97, 23 mel bands from 20 Hz, 13 cepstra, liftering 22) with
first and second differences, 39 numbers, every 10 ms; every second frame is kept, so that the frames are exactly
those of ``spintok.frames``. Source: Hsu et al. 2021, "HuBERT", section IV-B, and Kaldi's ``compute-mfcc-feats``.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spintok.frames import HOP, RECEPTIVE_FIELD, SAMPLE_RATE

__all__ = ["Mfcc", "mel_bands"]

_FFT = 512
_MELS = 23
_CEPSTRA = 13
_LIFTER = 22.0
_LOWEST_HZ = 20.0
_STEP = HOP // 2  # samples between the 10 ms frames that the differences are taken over
_REACH = 2  # frames on each side that a difference reads


class Mfcc(nn.Module):
    """Waveforms to MFCC with differences; no parameters. It is called as an ``Encoder`` is, but has no layers.

    ``num_features`` is D; ``context_frames`` is how many frames on each side a feature depends on.
    """

    num_features = 39
    context_frames = 2

    window: Tensor
    mel: Tensor
    dct: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", _povey_window(), persistent=False)
        self.register_buffer("mel", mel_bands(_MELS, _FFT), persistent=False)
        self.register_buffer("dct", _cepstral_transform(), persistent=False)

    def forward(
        self, waveforms: Tensor, lengths: Tensor, *, layer: None = None, statistics: None = None
    ) -> tuple[Tensor, Tensor]:
        """Features (B, T, 39) and frame counts (B,) of waveforms (B, S) float32 with lengths (B,) in samples.

        Frames past an utterance's own count are zero.
        """
        if waveforms.ndim != 2 or lengths.shape != waveforms.shape[:1]:
            raise ValueError(
                f"waveforms must be (B, S) and lengths (B,), got {tuple(waveforms.shape)} and {tuple(lengths.shape)}"
            )
        batch, samples = waveforms.shape
        counts = ((lengths - RECEPTIVE_FIELD).div(HOP, rounding_mode="floor") + 1).clamp(min=0)
        if samples < RECEPTIVE_FIELD:
            return waveforms.new_zeros(batch, 0, self.num_features), counts
        fine = ((lengths - RECEPTIVE_FIELD).div(_STEP, rounding_mode="floor") + 1).clamp(min=1)
        cepstra = self._cepstra(waveforms.unfold(1, RECEPTIVE_FIELD, _STEP))
        first = _difference(cepstra, fine)
        features = torch.cat([cepstra, first, _difference(first, fine)], dim=2)[:, ::2]
        valid = torch.arange(features.shape[1], device=features.device) < counts[:, None]
        return features * valid[:, :, None], counts

    def statistics(self, blocks: Iterable[Tensor]) -> None:
        """MFCC need to know nothing of a whole recording."""

    def _cepstra(self, frames: Tensor) -> Tensor:
        """Cepstra (B, T, 13) of windows of samples (B, T, 400)."""
        frames = frames - frames.mean(dim=2, keepdim=True)
        # The sample before the first is taken to be the first.
        previous = F.pad(frames, (1, 0), mode="replicate")[:, :, :-1]
        power = torch.fft.rfft((frames - 0.97 * previous) * self.window, n=_FFT).abs().square()
        bands = (power @ self.mel).clamp(min=torch.finfo(torch.float32).eps).log()
        cepstra: Tensor = bands @ self.dct
        return cepstra


def _difference(features: Tensor, counts: Tensor) -> Tensor:
    """Regression slope over five frames, ends repeated: (B, T, D) to (B, T, D)."""
    frames = features.shape[1]
    index = torch.arange(frames, device=features.device)
    last = (counts - 1)[:, None]
    slope = torch.zeros_like(features)
    for reach in range(1, _REACH + 1):
        ahead = torch.minimum(index + reach, last).clamp(min=0, max=frames - 1)
        behind = torch.minimum((index - reach).clamp(min=0)[None], last)
        slope = slope + reach * (_take(features, ahead) - _take(features, behind))
    return slope / (2 * sum(reach * reach for reach in range(1, _REACH + 1)))


def _take(features: Tensor, index: Tensor) -> Tensor:
    return features.gather(1, index[:, :, None].expand(-1, -1, features.shape[2]))


def _povey_window() -> Tensor:
    phase = torch.arange(RECEPTIVE_FIELD, dtype=torch.float64) * (2 * math.pi / (RECEPTIVE_FIELD - 1))
    return (0.5 - 0.5 * phase.cos()).pow(0.85).float()


def mel_bands(bands: int, fft: int) -> Tensor:
    """Triangles that are straight on the mel scale, from 20 Hz to half the sample rate: (fft / 2 + 1, bands)."""

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


def _cepstral_transform() -> Tensor:
    """Orthonormal DCT-II of the log bands and liftering of the cepstra in one matrix, (23, 13)."""
    band = torch.arange(_MELS, dtype=torch.float64)[:, None] + 0.5
    order = torch.arange(_CEPSTRA, dtype=torch.float64)[None]
    dct = torch.cos(math.pi / _MELS * band * order) * math.sqrt(2.0 / _MELS)
    dct[:, 0] = math.sqrt(1.0 / _MELS)
    lifter = 1.0 + 0.5 * _LIFTER * torch.sin(math.pi * order / _LIFTER)
    return (dct * lifter).float()
