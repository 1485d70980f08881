"""A front end with a fixed filter bank, for encoders trained on little speech: log-mel energies, then convolutions.

HuBERT's first convolutions learn a filter bank from hundreds of hours of speech, and take most of the computation of a
small model. Here the filter bank is fixed: Hann windows, the power spectrum, triangular mel filters, and logarithms.
Each band is normalised to zero mean and unit variance over the recording, so the convolutions see neither the level nor
a constant coloration of the channel.

The windows take the place of the first convolution in the frame arithmetic. For example, windows of 240 samples every
160, followed by a convolution of kernel 2 and stride 2, read 400 samples per frame and step by 320, as HuBERT does.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spintok.frames import FrameGrid, num_frames
from spintok.masks import length_mask, window_counts
from spintok.models.conv_layer import ConvLayer
from spintok.models.filterbank import mel_bands
from spintok.models.statistics import WaveformStatistics
from spintok.models.tracing import power_spectrum, sliding

__all__ = ["LogMelFrontEnd"]

# Added to the energy of each band. It is about ten times the rounding noise of 16-bit samples, so digital silence looks
# like a quiet room.
_FLOOR = 1e-6
# Added to the variance of each band over a recording, which is 3 to 10 for speech.
_VARIANCE_FLOOR = 1e-2


class LogMelFrontEnd(nn.Module):
    """The log-mel front end, with the interface of ``spintok.models.conv_frontend.FrontEnd``.

    Args:
        channels, kernels, strides: first the number of bands, the window and the hop in samples; then output
            channels, kernel and stride of each convolution.
        bias: whether the convolutions have a bias.
    """

    uses_statistics = True
    """Each frame depends on the whole waveform, through the mean and variance of each band."""

    window: Tensor
    mel: Tensor

    def __init__(self, channels: Sequence[int], kernels: Sequence[int], strides: Sequence[int], *, bias: bool) -> None:
        super().__init__()
        self.bands, self.length, self.hop = channels[0], kernels[0], strides[0]
        self.grid = FrameGrid.of_convolutions(kernels, strides)
        self.fft = 1 << (self.length - 1).bit_length() + 1
        # Not weights, so they must exist even if the module is created on the meta device.
        with torch.device("cpu"):
            self.register_buffer("window", torch.hann_window(self.length, periodic=False), persistent=False)
            self.register_buffer("mel", mel_bands(self.bands, self.fft), persistent=False)
        shapes = zip(channels[:-1], channels[1:], kernels[1:], strides[1:], strict=True)
        self.layers = nn.ModuleList(ConvLayer(*shape, bias=bias, norm=False) for shape in shapes)
        self.num_channels = channels[-1]
        """C of the last convolution."""

    def statistics(self, waveforms: Tensor, lengths: Tensor) -> WaveformStatistics:
        """Statistics of each waveform (B, S), zero after its length (B,); the patches are log-mel frames."""
        return self._statistics(waveforms, lengths, self._log_mel(waveforms))

    def _statistics(self, waveforms: Tensor, lengths: Tensor, bands: Tensor) -> WaveformStatistics:
        """``statistics`` from log-mel frames (B, T, bands); frames beyond the lengths are ignored."""
        counts = window_counts(lengths, self.length, self.hop)
        bands = bands.double() * length_mask(counts, bands.shape[1])[:, :, None]
        waveforms = waveforms.double()
        return WaveformStatistics(
            samples=lengths.double(),
            sum=waveforms.sum(1),
            squares=waveforms.square().sum(1),
            patches=counts.double(),
            patch_sum=bands.sum(1),
            patch_gram=bands.transpose(1, 2) @ bands,
        )

    def stream_statistics(self, blocks: Iterable[Tensor]) -> WaveformStatistics:
        """Statistics of one waveform, given as consecutive blocks (S_i,), which are not kept."""
        buffer = torch.empty(0, device=self.window.device)
        total = self.statistics(buffer[None], torch.zeros(1, dtype=torch.long, device=buffer.device))
        for block in blocks:
            buffer = torch.cat([buffer, block.to(buffer.device)])
            count = int(window_counts(torch.tensor(len(buffer)), self.length, self.hop))
            used = buffer[: count * self.hop + self.length - self.hop] if count else buffer[:0]
            total += self.statistics(used[None], torch.tensor([len(used)], device=buffer.device))
            buffer = buffer[count * self.hop :]
        return total

    def forward(self, waveforms: Tensor, lengths: Tensor, statistics: WaveformStatistics | None = None) -> Tensor:
        """Features (B, num_frames(S), C) of waveforms (B, S), which must be zero after their ``lengths`` (B,).

        ``statistics`` are those of the whole recordings if the waveforms are parts of them. Padded frames have
        arbitrary finite values.
        """
        batch, samples = waveforms.shape
        frames = num_frames(samples, self.grid)
        if frames == 0 or batch == 0:
            return waveforms.new_zeros(batch, frames, self.num_channels)
        if torch.is_grad_enabled() or waveforms.device.type != "cpu":
            return self._features(waveforms, lengths, statistics)
        # One utterance at a time without padding, so the matrix products have the same sizes in any batch.
        out = waveforms.new_zeros(batch, frames, self.num_channels)
        for index, length in enumerate(lengths.tolist()):
            if own := num_frames(length, self.grid):
                one = slice(index, index + 1)
                whole = None if statistics is None else statistics[one]
                out[index, :own] = self._features(waveforms[one, :length], lengths[one], whole)[0]
        return out

    def _features(self, waveforms: Tensor, lengths: Tensor, statistics: WaveformStatistics | None) -> Tensor:
        """Features (B, num_frames(S), C) of a whole batch at once."""
        batch, samples = waveforms.shape
        frames = num_frames(samples, self.grid)
        hops = (samples + self.grid.hop - 1) // self.grid.hop
        rows = self.normalised(waveforms, lengths, statistics).flatten(0, 1)
        for layer in self.layers:
            # Rows that read across the border between two utterances are cut off below.
            rows = layer(rows)
        rows = F.pad(rows, (0, 0, 0, batch * hops - rows.shape[0]))
        return rows.view(batch, hops, -1)[:, :frames]

    def normalised(self, waveforms: Tensor, lengths: Tensor, statistics: WaveformStatistics | None = None) -> Tensor:
        """Normalised log-mel frames of waveforms (B, S), those of a whole number of hops: (B, M, bands).

        Frames that read beyond ``lengths`` (B,) have arbitrary finite values.
        """
        samples = waveforms.shape[1]
        hops = (samples + self.grid.hop - 1) // self.grid.hop
        # Pad each to a whole number of hops, plus the samples that its last window reads beyond them.
        padded = F.pad(waveforms, (0, -samples % self.grid.hop + max(0, self.length - self.hop)))
        bands = self._log_mel(padded)[:, : hops * (self.grid.hop // self.hop)]
        if statistics is None:
            statistics = self._statistics(waveforms, lengths, bands)
        mean, covariance = statistics.patch_mean_and_covariance()
        scale = (covariance.diagonal(dim1=1, dim2=2).clamp(min=0) + _VARIANCE_FLOOR).rsqrt()
        # In float64, like the statistics: the variance of a band may be small compared with its mean.
        return ((bands.double() - mean[:, None]) * scale[:, None]).to(self.window.dtype)

    @torch.no_grad()
    def _log_mel(self, waveforms: Tensor) -> Tensor:
        """Log-mel energies (B, T, bands) of waveforms (B, S)."""
        if waveforms.shape[1] < self.length:
            return waveforms.new_zeros(len(waveforms), 0, self.bands)
        with torch.autocast(waveforms.device.type, enabled=False):
            frames = sliding(waveforms.float(), self.length, self.hop) * self.window
            power = power_spectrum(frames, self.fft)
            return (power @ self.mel + _FLOOR).log()
