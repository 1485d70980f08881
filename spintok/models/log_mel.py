"""A front end for encoders trained on little speech: log energies in mel bands, then convolutions.

HuBERT's first convolutions learn a filter bank, from hundreds of hours and at most of the cost of a small model. Here
it is given: Hann windows, the power spectrum, triangles on the mel scale, logarithms, each band brought to zero mean
and unit variance over the recording. So neither the level nor a fixed colouring of the channel is seen behind it. The
windows are the first of the convolutions as far as the frames are concerned: 240 samples every 160, say, and then a
convolution of 2 by 2, read 400 samples a frame and step by 320, as HuBERT does.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spintok.frames import HOP, num_frames
from spintok.models.conv_frontend import ConvLayer, Statistics
from spintok.models.mfcc import mel_bands

__all__ = ["LogMelFrontEnd"]

# Added to each band's energy: some ten times that of the rounding of 16-bit samples, so that a digital silence is no
# deeper than a quiet room.
_FLOOR = 1e-6
# Added to each band's variance over a recording; that of speech is 3 to 10.
_VARIANCE_FLOOR = 1e-2


class LogMelFrontEnd(nn.Module):
    """Waveforms to features, as ``spintok.models.conv_frontend.FrontEnd``.

    Args:
        channels, kernels, strides: the number of bands, the window and the hop in samples; then those of each
            convolution. Together they read 400 samples a frame and step by 320.
        bias: whether the convolutions have one.
    """

    uses_statistics = True
    """A frame depends on the whole waveform, through the mean and variance of each band."""

    window: Tensor
    mel: Tensor

    def __init__(self, channels: Sequence[int], kernels: Sequence[int], strides: Sequence[int], *, bias: bool) -> None:
        super().__init__()
        self.bands, self.length, self.hop = channels[0], kernels[0], strides[0]
        self.fft = 1 << (self.length - 1).bit_length() + 1
        # They are no weights to load, so they are there also when the module is made on the meta device.
        with torch.device("cpu"):
            self.register_buffer("window", torch.hann_window(self.length, periodic=False), persistent=False)
            self.register_buffer("mel", mel_bands(self.bands, self.fft), persistent=False)
        shapes = zip(channels[:-1], channels[1:], kernels[1:], strides[1:], strict=True)
        self.layers = nn.ModuleList(ConvLayer(*shape, bias=bias, norm=False) for shape in shapes)
        self.num_channels = channels[-1]
        """C of the last convolution."""

    def statistics(self, waveforms: Tensor, lengths: Tensor) -> Statistics:
        """Statistics of each of the waveforms (B, S), zero from their ``lengths`` (B,) on; patches are bands."""
        return self._statistics(waveforms, lengths, self._log_mel(waveforms))

    def _statistics(self, waveforms: Tensor, lengths: Tensor, bands: Tensor) -> Statistics:
        """``statistics`` from the bands (B, T, bands) that are known already; those past the lengths do not count."""
        counts = self._counts(lengths)
        bands = bands.double()
        index = torch.arange(bands.shape[1], device=bands.device)
        bands = bands * (index < counts[:, None])[:, :, None]
        waveforms = waveforms.double()
        return Statistics(
            samples=lengths.double(),
            sum=waveforms.sum(1),
            squares=waveforms.square().sum(1),
            patches=counts.double(),
            patch_sum=bands.sum(1),
            patch_gram=bands.transpose(1, 2) @ bands,
        )

    def stream_statistics(self, blocks: Iterable[Tensor]) -> Statistics:
        """Statistics of one waveform that comes in consecutive blocks (S_i,), none of which is kept."""
        held = torch.empty(0, device=self.window.device)
        total = self.statistics(held[None], torch.zeros(1, dtype=torch.long, device=held.device))
        for block in blocks:
            held = torch.cat([held, block.to(held.device)])
            count = int(self._counts(torch.tensor(len(held))))
            used = held[: count * self.hop + self.length - self.hop] if count else held[:0]
            total += self.statistics(used[None], torch.tensor([len(used)], device=held.device))
            held = held[count * self.hop :]
        return total

    def forward(self, waveforms: Tensor, lengths: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Features (B, num_frames(S), C) of waveforms (B, S), zero from their ``lengths`` (B,) on.

        ``statistics`` are those of the whole files when the waveforms are cuts of them. Frames past an
        utterance's own count hold arbitrary finite values.
        """
        batch, samples = waveforms.shape
        frames = num_frames(samples)
        if frames == 0 or batch == 0:
            return waveforms.new_zeros(batch, frames, self.num_channels)
        if torch.is_grad_enabled() or waveforms.device.type != "cpu":
            return self._features(waveforms, lengths, statistics)
        # One utterance at a time and no padding: its rows go through products of the size that they have alone.
        out = waveforms.new_zeros(batch, frames, self.num_channels)
        for index, length in enumerate(lengths.tolist()):
            if own := num_frames(length):
                one = slice(index, index + 1)
                whole = None if statistics is None else statistics[one]
                out[index, :own] = self._features(waveforms[one, :length], lengths[one], whole)[0]
        return out

    def _features(self, waveforms: Tensor, lengths: Tensor, statistics: Statistics | None) -> Tensor:
        """All of a batch at once: features (B, num_frames(S), C)."""
        batch, samples = waveforms.shape
        frames = num_frames(samples)
        hops = (samples + HOP - 1) // HOP
        # Each a whole number of hops, and the samples that its last window reads past them.
        padded = F.pad(waveforms, (0, -samples % HOP + max(0, self.length - self.hop)))
        bands = self._log_mel(padded)[:, : hops * (HOP // self.hop)]
        if statistics is None:
            statistics = self._statistics(waveforms, lengths, bands)
        mean, covariance = statistics.patch_mean_and_covariance()
        scale = (covariance.diagonal(dim1=1, dim2=2).clamp(min=0) + _VARIANCE_FLOOR).rsqrt()
        # In float64, as the statistics are: the variance of a band may be small beside its mean.
        rows = ((bands.double() - mean[:, None]) * scale[:, None]).to(self.window.dtype).flatten(0, 1)
        for layer in self.layers:
            # Rows that a convolution reads across the border of two utterances are those cut off below.
            rows = layer(rows)
        rows = F.pad(rows, (0, 0, 0, batch * hops - len(rows)))
        return rows.view(batch, hops, -1)[:, :frames]

    @torch.no_grad()
    def _log_mel(self, waveforms: Tensor) -> Tensor:
        """Log energies (B, T, bands) of the windows of waveforms (B, S)."""
        if waveforms.shape[1] < self.length:
            return waveforms.new_zeros(len(waveforms), 0, self.bands)
        with torch.autocast(waveforms.device.type, enabled=False):
            frames = waveforms.float().unfold(1, self.length, self.hop) * self.window
            power = torch.view_as_real(torch.fft.rfft(frames, n=self.fft)).square().sum(-1)
            return (power @ self.mel + _FLOOR).log()

    def _counts(self, lengths: Tensor) -> Tensor:
        """Windows that lie within ``lengths`` samples."""
        return ((lengths - self.length).div(self.hop, rounding_mode="floor") + 1).clamp(min=0)
