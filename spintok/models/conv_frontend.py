"""The convolutional front end of HuBERT, wav2vec 2.0 and WavLM: waveforms to feature vectors,
50 per second in these models.

Base models normalise each channel of the first convolution over time (Wu and He 2018, "Group Normalization", one
channel per group), so padding a waveform, or cutting it, would change every frame. The first convolution is linear:
the mean and variance of its output over a whole waveform follow from the mean and covariance of the waveform's
10-sample patches (``WaveformStatistics``). They are computed over each waveform's own patches, in float64, and the
normalisation is folded into the weights of the convolution.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from spintok_kernels.linear import linear as fixed_linear
from torch import Tensor, nn
from torch.nn import functional as F

from spintok.frames import FrameGrid, num_frames, num_samples
from spintok.masks import length_mask, window_counts
from spintok.models.conv_layer import ConvLayer
from spintok.models.products import fixed_order
from spintok.models.statistics import WaveformStatistics
from spintok.models.tracing import sliding

__all__ = ["FrontEnd"]

# On a CPU, so many frames go through the convolutions at once: their activations fit into the cache.
_CHUNK = 64


class FrontEnd(nn.Module):
    """The convolutions (seven in HuBERT) with their normalisation.

    Args:
        channels, kernels, strides: output channels, kernel and stride of each convolution.
        bias: whether the convolutions have a bias.
        group_norm: True normalises each channel of the first convolution over time (Base models); False applies a
            layer norm to the output of every convolution (Large models).
        waveform_eps: first normalise each waveform to zero mean and unit variance, adding this to the variance;
            None leaves the waveform unchanged.
    """

    def __init__(
        self,
        channels: Sequence[int],
        kernels: Sequence[int],
        strides: Sequence[int],
        *,
        bias: bool,
        group_norm: bool,
        waveform_eps: float | None,
    ) -> None:
        super().__init__()
        self.group_norm = group_norm
        self.waveform_eps = waveform_eps
        self.grid = FrameGrid.of_convolutions(kernels, strides)
        inputs = [1, *channels[:-1]]
        self.layers = nn.ModuleList(
            ConvLayer(*shape, bias=bias, norm=not group_norm or index == 0)
            for index, shape in enumerate(zip(inputs, channels, kernels, strides, strict=True))
        )

    @property
    def first(self) -> ConvLayer:
        layer = self.layers[0]
        assert isinstance(layer, ConvLayer)
        return layer

    @property
    def num_channels(self) -> int:
        """C of the last convolution."""
        last = self.layers[-1]
        assert isinstance(last, ConvLayer)
        return last.weight.shape[2]

    @property
    def uses_statistics(self) -> bool:
        """Whether each frame depends on the whole waveform."""
        return self.group_norm or self.waveform_eps is not None

    def statistics(self, waveforms: Tensor, lengths: Tensor) -> WaveformStatistics:
        """Statistics of each waveform of a batch (B, S), which must be zero after its length (B,)."""
        kernel, stride = self.first.kernel, self.first.stride
        waveforms = waveforms.double()
        patches = window_counts(lengths, kernel, stride)
        if waveforms.shape[1] < kernel:
            rows = waveforms.new_zeros(len(waveforms), 0, kernel)
        else:
            rows = sliding(waveforms, kernel, stride)
            if len(waveforms) > 1:
                rows = rows * length_mask(patches, rows.shape[1])[:, :, None]
        rows = rows.contiguous()
        return WaveformStatistics(
            samples=lengths.double(),
            sum=waveforms.sum(1),
            squares=waveforms.square().sum(1),
            patches=patches.double(),
            patch_sum=rows.sum(1),
            patch_gram=rows.transpose(1, 2) @ rows,
        )

    def stream_statistics(self, blocks: Iterable[Tensor]) -> WaveformStatistics:
        """Statistics of one waveform, given as consecutive blocks (S_i,), which are not kept."""
        kernel, stride = self.first.kernel, self.first.stride
        device = self.first.weight.device
        buffer = torch.empty(0, device=device)
        total = self.statistics(buffer[None], torch.zeros(1, dtype=torch.long, device=device))
        for block in blocks:
            block = block.to(device)
            # The buffered samples have been counted already; here they only complete patches.
            samples = block.double()
            patches = torch.cat([buffer, block])
            part = self.statistics(patches[None], torch.tensor([len(patches)], device=device))
            total += WaveformStatistics(
                samples=torch.tensor([len(block)], dtype=torch.float64, device=device),
                sum=samples.sum()[None],
                squares=samples.square().sum()[None],
                patches=part.patches,
                patch_sum=part.patch_sum,
                patch_gram=part.patch_gram,
            )
            buffer = patches[int(part.patches) * stride :]
            assert len(buffer) < kernel + stride
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
        if statistics is None and self.uses_statistics:
            statistics = self.statistics(waveforms, lengths)
        if self.waveform_eps is not None:
            assert statistics is not None
            mean, variance = statistics.mean_and_variance()
            scale = (variance + self.waveform_eps).rsqrt()
            normalised = (waveforms - mean.to(waveforms.dtype)[:, None]) * scale.to(waveforms.dtype)[:, None]
            waveforms = torch.where(length_mask(lengths, samples), normalised, 0.0)
        weight, bias = self._first_weights(statistics)
        waveforms = waveforms.to(weight.dtype)
        if torch.is_grad_enabled() or waveforms.device.type != "cpu":
            return self._convolve(waveforms, weight, bias)
        return self._convolve_in_chunks(waveforms, lengths, weight, bias)

    def _first_weights(self, statistics: WaveformStatistics | None) -> tuple[Tensor, Tensor | None]:
        """Weights (B or 1, kernel, C) and bias (B or 1, C) of the first convolution with the group norm folded in."""
        first = self.first
        weight = first.weight[:, 0]
        if not self.group_norm:
            return weight[None], None if first.bias is None else first.bias[None]
        assert statistics is not None
        assert first.norm is not None
        mean, covariance = statistics.patch_mean_and_covariance()
        if self.waveform_eps is not None:
            shift, variance = statistics.mean_and_variance()
            variance = variance + self.waveform_eps
            mean = (mean - shift[:, None]) * variance.rsqrt()[:, None]
            covariance = covariance / variance[:, None, None]
        # In float64, since a channel's variance may be many orders of magnitude below that of the waveform. The
        # convolution's bias cancels in the normalisation.
        exact = weight.double()
        spread = (exact * (covariance @ exact)).sum(1).clamp(min=0)
        scale = first.norm.weight.double() * (spread + first.norm.eps).rsqrt()
        folded = exact * scale[:, None, :]
        bias = first.norm.bias.double() - (mean[:, None, :] @ folded)[:, 0]
        return folded.to(weight.dtype), bias.to(weight.dtype)

    def _convolve(self, waveforms: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Features (B, num_frames(S), C) of a whole batch at once."""
        batch, samples = waveforms.shape
        frames = num_frames(samples, self.grid)
        if batch > 1:
            # Concatenate the waveforms, each padded to a whole number of hops. In every layer the rows of an utterance
            # then start at a multiple of the next stride, and rows that read across a border are cut off below.
            waveforms = F.pad(waveforms, (0, -samples % self.grid.hop))
        hops = waveforms.shape[1] // self.grid.hop
        first = self.first
        flat = F.pad(waveforms.flatten(), (0, first.kernel - first.stride))
        patches = sliding(flat, first.kernel, first.stride)
        if fixed_order(waveforms):
            rows = fixed_linear(patches, weight[0].t(), None if bias is None else bias[0])
        elif len(weight) == 1:
            rows = patches @ weight[0] if bias is None else torch.addmm(bias[0], patches, weight[0])
        else:
            patches = patches.reshape(batch, -1, first.kernel)
            rows = patches @ weight if bias is None else torch.baddbmm(bias[:, None], patches, weight)
            rows = rows.flatten(0, 1)
        if self.group_norm:
            rows = F.gelu(rows) if torch.is_grad_enabled() else torch.ops.aten.gelu_(rows)
        else:
            rows = first.activate(rows)
        for layer in self.layers[1:]:
            rows = layer(rows)
        if batch == 1:
            return rows[None, :frames]
        rows = F.pad(rows, (0, 0, 0, batch * hops - rows.shape[0]))
        return rows.view(batch, hops, -1)[:, :frames]

    def _convolve_in_chunks(self, waveforms: Tensor, lengths: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The same, one utterance and a few frames at a time and without padding, which is fastest on a CPU."""
        batch = len(waveforms)
        frames = num_frames(waveforms.shape[1], self.grid)
        found: list[list[Tensor]] = [[] for _ in range(batch)]
        for index, length in enumerate(lengths.tolist()):
            own = slice(0, 1) if len(weight) == 1 else slice(index, index + 1)
            own_bias = None if bias is None else bias[own]
            count = num_frames(length, self.grid)
            parts = math.ceil(count / _CHUNK)
            for part in range(parts):
                # Parts of similar size: a last part of a few frames would be slow.
                start, stop = count * part // parts, count * (part + 1) // parts
                first = start * self.grid.hop
                cut = waveforms[index : index + 1, first : first + num_samples(stop - start, self.grid)]
                found[index].append(self._convolve(cut, weight[own], own_bias)[0])
        out = waveforms.new_zeros(batch, frames, self.num_channels)
        for row, chunks in zip(out, found, strict=True):
            if chunks:
                joined = torch.cat(chunks)
                row[: len(joined)] = joined
        return out
