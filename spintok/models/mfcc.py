"""MFCC at the frames of HuBERT: the input of HuBERT's first K-means.

Kaldi's recipe: 25 ms Povey windows every 10 ms, pre-emphasis 0.97, 23 mel bands from 20 Hz, 13 cepstra, liftering 22,
first and second differences. Every second frame is kept, so the frames are those of ``spintok.frames``.
Source: Hsu et al. 2021, "HuBERT", section IV-B, and Kaldi's ``compute-mfcc-feats``.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from spintok.frames import HOP, RECEPTIVE_FIELD, num_frames
from spintok.masks import frame_counts, length_mask, window_counts
from spintok.models.base import FeatureExtractor
from spintok.models.filterbank import kaldi_frames, mel_bands, povey_window
from spintok.models.products import fixed_order
from spintok.models.statistics import WaveformStatistics
from spintok.models.tracing import power_spectrum, sliding

__all__ = ["STEP", "Mfcc"]

_FFT = 512
_MELS = 23
_CEPSTRA = 13
_LIFTER = 22.0
STEP = HOP // 2
"""Samples between the 10 ms frames, of which differences are computed."""

_REACH = 2  # frames on either side that a difference reads


class Mfcc(FeatureExtractor):
    """MFCC with first and second differences. It has no weights and one layer, number 0."""

    type_name = "mfcc"
    has_layers = False
    context_frames = 2

    window: Tensor
    mel: Tensor
    dct: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", povey_window().float(), persistent=False)
        self.register_buffer("mel", mel_bands(_MELS, _FFT), persistent=False)
        self.register_buffer("dct", _cepstral_transform(), persistent=False)

    @property
    def num_features(self) -> int:
        """39: 13 cepstra with their first and second differences."""
        return 3 * _CEPSTRA

    @property
    def num_layers(self) -> int:
        """0: MFCC have no transformer layers, and layer 0 is the MFCC."""
        return 0

    def hidden_states(
        self,
        waveforms: Tensor,
        lengths: Tensor | None = None,
        *,
        layers: Sequence[int] | None = None,
        statistics: WaveformStatistics | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        layers = [0] if layers is None else layers
        self.check_layers(layers)
        if lengths is None:
            lengths = torch.full((len(waveforms),), waveforms.shape[1], device=waveforms.device)
        if waveforms.ndim != 2 or lengths.shape != waveforms.shape[:1]:
            raise ValueError(
                f"waveforms must be (B, S) and lengths (B,), got {tuple(waveforms.shape)} and {tuple(lengths.shape)}"
            )
        batch, samples = waveforms.shape
        counts = frame_counts(lengths)
        if batch > 1 and fixed_order(waveforms):
            # One at a time, as the sums of a GPU depend on the shape of the batch.
            alone = [self(waveforms[i : i + 1, :n])[0][0] for i, n in enumerate(lengths.tolist())]
            padded = pad_sequence(alone, batch_first=True)
            padded = F.pad(padded, (0, 0, 0, num_frames(samples) - padded.shape[1]))
            return [padded for _ in layers], counts
        if samples < RECEPTIVE_FIELD:
            return [waveforms.new_zeros(batch, 0, self.num_features) for _ in layers], counts
        fine = window_counts(lengths, RECEPTIVE_FIELD, STEP).clamp(min=1)
        cepstra = self._cepstra(sliding(waveforms, RECEPTIVE_FIELD, STEP))
        first = _difference(cepstra, fine)
        features = torch.cat([cepstra, first, _difference(first, fine)], dim=2)[:, ::2]
        features = features * length_mask(counts, features.shape[1])[:, :, None]
        return [features for _ in layers], counts

    def statistics(self, blocks: Iterable[Tensor]) -> None:
        """None: MFCC depend on a few frames only."""

    def truncated(self, layers: int) -> "Mfcc":
        self.check_layers([layers])
        return self

    def to_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> "Mfcc":
        if values:
            raise ValueError(f"unknown field {', '.join(sorted(map(str, values)))}: MFCC have no settings")
        return cls()

    def layer_name(self, layer: int) -> str:
        return "mfcc"

    def _cepstra(self, frames: Tensor) -> Tensor:
        """Cepstra (B, T, 13) of the samples of each window (B, T, 400)."""
        frames = kaldi_frames(frames, self.window)
        # The root and its square round otherwise than ``power_spectrum``: shipped tokens have these bits.
        exporting = torch.compiler.is_exporting()
        power = power_spectrum(frames, _FFT) if exporting else torch.fft.rfft(frames, n=_FFT).abs().square()
        bands = (power @ self.mel).clamp(min=torch.finfo(torch.float32).eps).log()
        cepstra: Tensor = bands @ self.dct
        return cepstra


def _difference(features: Tensor, counts: Tensor) -> Tensor:
    """Regression slope over five frames, (B, T, D) to (B, T, D); the first and the last valid frame repeat."""
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


def _cepstral_transform() -> Tensor:
    """Orthonormal DCT-II of the log-mel energies and liftering of the cepstra as one matrix, (23, 13)."""
    band = torch.arange(_MELS, dtype=torch.float64)[:, None] + 0.5
    order = torch.arange(_CEPSTRA, dtype=torch.float64)[None]
    dct = torch.cos(math.pi / _MELS * band * order) * math.sqrt(2.0 / _MELS)
    dct[:, 0] = math.sqrt(1.0 / _MELS)
    lifter = 1.0 + 0.5 * _LIFTER * torch.sin(math.pi * order / _LIFTER)
    return (dct * lifter).float()
