"""The log-mel front end of encoders that stream: as ``spintok.models.log_mel``, with running statistics.

The mean of each window is taken from it, so a constant offset drops out before it leaks into the lowest bands.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spintok.frames import HOP, num_frames
from spintok.masks import frame_counts
from spintok.models.conv_layer import ConvLayer
from spintok.models.filterbank import mel_bands
from spintok.models.running import MELS_PER_FRAME, RunningNorm
from spintok.models.streaming import StreamingConfig
from spintok.models.tracing import power_spectrum, sliding

__all__ = ["RunningLogMelFrontEnd"]


class RunningLogMelFrontEnd(nn.Module):
    """Energies of mel bands, running normalisation, and one convolution over the two log-mel frames of a frame.

    Args:
        channels, kernels, strides: the number of bands, the window and the hop in samples; then output channels, kernel
            and stride of the convolution. Together they read 400 samples per frame and step by 320.
        bias: whether the convolution has a bias.
        streaming: the settings of the normalisation.
    """

    window: Tensor
    mel: Tensor

    def __init__(
        self,
        channels: Sequence[int],
        kernels: Sequence[int],
        strides: Sequence[int],
        *,
        bias: bool,
        streaming: StreamingConfig,
    ) -> None:
        super().__init__()
        self.length, self.hop = kernels[0], strides[0]
        self.fft = 1 << (self.length - 1).bit_length() + 1
        # Not weights, so they must exist even if the module is created on the meta device.
        with torch.device("cpu"):
            self.register_buffer("window", torch.hann_window(self.length, periodic=False), persistent=False)
            self.register_buffer("mel", mel_bands(channels[0], self.fft), persistent=False)
        self.norm = RunningNorm(channels[0], streaming)
        self.layers = nn.ModuleList(
            [ConvLayer(channels[0], channels[1], kernels[1], strides[1], bias=bias, norm=False)]
        )
        self.num_channels = channels[1]
        """C of the convolution."""

    def forward(self, waveforms: Tensor, lengths: Tensor, *, chunk: int | None = None) -> Tensor:
        """Features (B, num_frames(S), C) of waveforms (B, S), which must be zero after their ``lengths`` (B,).

        ``chunk`` is the frames after which the statistics move on; None takes those of the whole waveform. Padded
        frames have arbitrary finite values.
        """
        batch, samples = waveforms.shape
        frames = num_frames(samples)
        if frames == 0 or batch == 0:
            return waveforms.new_zeros(batch, frames, self.num_channels)
        if torch.is_grad_enabled() or waveforms.device.type != "cpu":
            return self._features(waveforms, frame_counts(lengths), frames, chunk)
        # One utterance at a time without padding, so the matrix products have the same sizes in any batch.
        out = waveforms.new_zeros(batch, frames, self.num_channels)
        for row, length in enumerate(lengths.tolist()):
            if own := num_frames(length):
                counts = torch.tensor([own])
                out[row, :own] = self._features(waveforms[row : row + 1, :length], counts, own, chunk)[0]
        return out

    def _features(self, waveforms: Tensor, counts: Tensor, frames: int, chunk: int | None) -> Tensor:
        power = self.power(waveforms, frames)
        return self.convolve(self.norm(power, counts * MELS_PER_FRAME, chunk))

    @torch.no_grad()
    def power(self, waveforms: Tensor, frames: int) -> Tensor:
        """Energies (B, 2 * frames, bands) of the bands in the first frames of waveforms (B, S)."""
        needed = frames * HOP + self.length - self.hop
        with torch.autocast(waveforms.device.type, enabled=False):
            windows = sliding(waveforms[:, :needed].float(), self.length, self.hop)
            windows = (windows - windows.mean(2, keepdim=True)) * self.window
            return power_spectrum(windows, self.fft) @ self.mel

    def convolve(self, rows: Tensor) -> Tensor:
        """Features (B, T, C) of normalised bands (B, 2 T, bands)."""
        (layer,) = self.layers
        features: Tensor = layer(rows.flatten(0, 1))
        return features.view(len(rows), -1, self.num_channels)
