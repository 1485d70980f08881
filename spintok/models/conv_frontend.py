"""The convolutional front end of HuBERT, wav2vec 2.0 and WavLM: waveforms to 50 feature vectors a second.

Two things differ from other implementations, and neither changes the result.

*Masked normalisation.* Base models normalise each channel of the first convolution over time (Wu and He 2018,
"Group Normalization", one channel a group), so padding, or a cut of a long file, changes every frame. The
first convolution is linear, so its mean and variance over a whole waveform follow from the mean and
covariance of the waveform's 10-sample patches: ``Statistics``. They are taken over each waveform's own
patches in float64, and the normalisation is folded into the convolution's weights.

*Rows.* Activations lie frame by frame, (frames, channels), so a strided convolution is a few matrix products
on views of its input, without im2col and without transposes around the layer norms.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spintok.frames import HOP, RECEPTIVE_FIELD, num_frames, num_samples

__all__ = ["ConvLayer", "FrontEnd", "Statistics", "check_geometry"]

# Frames that go through the convolutions at once on a CPU: their activations stay in the cache.
_CHUNK = 64


@dataclass(frozen=True)
class Statistics:
    """Sums over whole waveforms, in float64, from which the front end's normalisations follow.

    ``samples`` (B,), ``sum`` (B,), ``squares`` (B,): count, sum and sum of squares of the samples.
    ``patches`` (B,), ``patch_sum`` (B, k), ``patch_gram`` (B, k, k): the same of the first convolution's
    inputs, ``k`` samples each.
    """

    samples: Tensor
    sum: Tensor
    squares: Tensor
    patches: Tensor
    patch_sum: Tensor
    patch_gram: Tensor

    def __add__(self, other: "Statistics") -> "Statistics":
        return Statistics(*(a + b for a, b in zip(self._all(), other._all(), strict=True)))

    def __getitem__(self, rows: slice) -> "Statistics":
        """Those of some of the waveforms."""
        return Statistics(*(values[rows] for values in self._all()))

    def _all(self) -> tuple[Tensor, ...]:
        return (self.samples, self.sum, self.squares, self.patches, self.patch_sum, self.patch_gram)

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        """Of the samples: (B,) and (B,)."""
        count = self.samples.clamp(min=1)
        mean = self.sum / count
        return mean, (self.squares / count - mean.square()).clamp(min=0)

    def patch_mean_and_covariance(self) -> tuple[Tensor, Tensor]:
        """Of the patches: (B, k) and (B, k, k)."""
        count = self.patches.clamp(min=1)[:, None]
        mean = self.patch_sum / count
        return mean, self.patch_gram / count[:, :, None] - mean[:, :, None] * mean[:, None, :]


class ConvLayer(nn.Module):
    """One convolution, its normalisation and GELU, on rows: (frames, in) to (frames, out).

    ``weight`` is (kernel, in, out). ``norm`` is the scale and shift of the group norm or layer norm, if any.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, *, bias: bool, norm: bool) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(kernel, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.norm = nn.LayerNorm(outputs) if norm else None

    def forward(self, rows: Tensor) -> Tensor:
        """Rows (N, in) to ((N - kernel) // stride + 1, out); consecutive rows are consecutive frames."""
        in_pairs = (self.kernel, self.stride) == (3, 2) and rows.device.type == "cpu" and _overwrites(rows)
        return self.activate(self._in_pairs(rows) if in_pairs else self._products(rows))

    def _products(self, rows: Tensor) -> Tensor:
        """The convolution as one matrix product for each stride of taps, on views of the rows."""
        count = (len(rows) - self.kernel) // self.stride + 1
        out: Tensor | None = None
        for tap in range(0, self.kernel, self.stride):
            if tap + self.stride <= self.kernel:
                # A whole stride of taps: the input rows, seen `stride` at a time.
                block = rows[tap : tap + self.stride * count].reshape(count, -1)
                out = self._add(out, block, self.weight[tap : tap + self.stride].flatten(0, 1))
            else:
                for left in range(tap, self.kernel):
                    out = self._add(out, rows[left :: self.stride][:count], self.weight[left])
        assert out is not None
        return out

    def _in_pairs(self, rows: Tensor) -> Tensor:
        """The same for kernel 3 and stride 2 with a sixth fewer operations: a product that two outputs share.

        For outputs of the inputs a b c and c d e:  (a - c) W0 + b W1 + c (W0 + W2)  and  c (W0 + W2) + d W1 +
        (e - c) W2. Source: Winograd 1980, "Arithmetic Complexity of Computations", F(2, 2). It rounds a little
        more, about twice as far from the exact result.
        """
        count = (len(rows) - 3) // 2 + 1
        pairs, channels = count // 2, rows.shape[1]
        a, b, c, d = rows[: 4 * pairs].view(pairs, 4 * channels).split(channels, dim=1)
        e = rows[4::4][:pairs]
        first, middle, last = self.weight
        shared = self._add(None, c, first + last)
        out = rows.new_empty(count, self.weight.shape[2])
        both = out[: 2 * pairs].view(pairs, 2, out.shape[1])
        both[:, 0] = torch.addmm(shared, a - c, first).addmm_(b, middle)
        both[:, 1] = shared.addmm_(e - c, last).addmm_(d, middle)
        if count % 2:
            out[-1:] = self._products(rows[2 * (count - 1) :])
        return out

    def activate(self, rows: Tensor) -> Tensor:
        """Layer norm where the layer has one, then GELU."""
        if self.norm is not None:
            rows = self.norm(rows)
        return F.gelu(rows) if torch.is_grad_enabled() else torch.ops.aten.gelu_(rows)

    def _add(self, out: Tensor | None, rows: Tensor, weight: Tensor) -> Tensor:
        if out is not None:
            return out.addmm_(rows, weight) if _overwrites(rows) else torch.addmm(out, rows, weight)
        return rows @ weight if self.bias is None else torch.addmm(self.bias, rows, weight)


class FrontEnd(nn.Module):
    """Waveforms to features: seven convolutions in HuBERT, with the normalisations that the model asks for.

    Args:
        channels, kernels, strides: of each convolution; together they read 400 samples a frame and step by
            320.
        bias: whether the convolutions have one.
        group_norm: normalise the first convolution's channels over time (Base models); otherwise every
            convolution's output is layer-normalised (Large models).
        waveform_eps: normalise each waveform to zero mean and unit variance first, with this added to the
            variance; None leaves waveforms as they are.
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
        """Whether a frame depends on the whole waveform."""
        return self.group_norm or self.waveform_eps is not None

    def statistics(self, waveforms: Tensor, lengths: Tensor) -> Statistics:
        """Statistics of each of the waveforms (B, S), zero from their ``lengths`` (B,) on."""
        kernel, stride = self.first.kernel, self.first.stride
        waveforms = waveforms.double()
        patches = (lengths - kernel).div(stride, rounding_mode="floor").add(1).clamp(min=0)
        if waveforms.shape[1] < kernel:
            rows = waveforms.new_zeros(len(waveforms), 0, kernel)
        else:
            rows = waveforms.unfold(1, kernel, stride)
            if len(waveforms) > 1:
                index = torch.arange(rows.shape[1], device=rows.device)
                rows = rows * (index < patches[:, None])[:, :, None]
        rows = rows.contiguous()
        return Statistics(
            samples=lengths.double(),
            sum=waveforms.sum(1),
            squares=waveforms.square().sum(1),
            patches=patches.double(),
            patch_sum=rows.sum(1),
            patch_gram=rows.transpose(1, 2) @ rows,
        )

    def stream_statistics(self, blocks: Iterable[Tensor]) -> Statistics:
        """Statistics of one waveform that comes in consecutive blocks (S_i,), none of which is kept."""
        kernel, stride = self.first.kernel, self.first.stride
        device = self.first.weight.device
        held = torch.empty(0, device=device)
        total = self.statistics(held[None], torch.zeros(1, dtype=torch.long, device=device))
        for block in blocks:
            block = block.to(device)
            # The samples were counted when they came; what is held over only completes patches.
            samples = block.double()
            patches = torch.cat([held, block])
            part = self.statistics(patches[None], torch.tensor([len(patches)], device=device))
            total += Statistics(
                samples=torch.tensor([len(block)], dtype=torch.float64, device=device),
                sum=samples.sum()[None],
                squares=samples.square().sum()[None],
                patches=part.patches,
                patch_sum=part.patch_sum,
                patch_gram=part.patch_gram,
            )
            held = patches[int(part.patches) * stride :]
            assert len(held) < kernel + stride
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
        if statistics is None and self.uses_statistics:
            statistics = self.statistics(waveforms, lengths)
        if self.waveform_eps is not None:
            assert statistics is not None
            mean, variance = statistics.mean_and_variance()
            scale = (variance + self.waveform_eps).rsqrt()
            valid = torch.arange(samples, device=waveforms.device) < lengths[:, None]
            normalised = (waveforms - mean.to(waveforms.dtype)[:, None]) * scale.to(waveforms.dtype)[:, None]
            waveforms = torch.where(valid, normalised, 0.0)
        weight, bias = self._first_weights(statistics)
        waveforms = waveforms.to(weight.dtype)
        if torch.is_grad_enabled() or waveforms.device.type != "cpu":
            return self._convolve(waveforms, weight, bias)
        return self._convolve_in_chunks(waveforms, lengths, weight, bias)

    def _first_weights(self, statistics: Statistics | None) -> tuple[Tensor, Tensor | None]:
        """The first convolution's weights (B or 1, kernel, C) and bias (B or 1, C), group norm folded in."""
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
        # In float64: a channel's variance may be many orders below the waveform's own. A bias would cancel.
        exact = weight.double()
        spread = (exact * (covariance @ exact)).sum(1).clamp(min=0)
        scale = first.norm.weight.double() * (spread + first.norm.eps).rsqrt()
        folded = exact * scale[:, None, :]
        bias = first.norm.bias.double() - (mean[:, None, :] @ folded)[:, 0]
        return folded.to(weight.dtype), bias.to(weight.dtype)

    def _convolve(self, waveforms: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """All of a batch at once: features (B, num_frames(S), C)."""
        batch, samples = waveforms.shape
        frames = num_frames(samples)
        if batch > 1:
            # The waveforms end to end, each a whole number of hops: every layer's rows of one utterance start
            # at a multiple of the next stride, and rows that read across a border are those cut off below.
            waveforms = F.pad(waveforms, (0, -samples % HOP))
        hops = waveforms.shape[1] // HOP
        first = self.first
        flat = F.pad(waveforms.flatten(), (0, first.kernel - first.stride))
        patches = flat.unfold(0, first.kernel, first.stride)
        if len(weight) == 1:
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
        rows = F.pad(rows, (0, 0, 0, batch * hops - len(rows)))
        return rows.view(batch, hops, -1)[:, :frames]

    def _convolve_in_chunks(self, waveforms: Tensor, lengths: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """One utterance and some frames at a time, and no padding: what is fastest on a CPU."""
        batch = len(waveforms)
        frames = num_frames(waveforms.shape[1])
        found: list[list[Tensor]] = [[] for _ in range(batch)]
        for index, length in enumerate(lengths.tolist()):
            own = slice(0, 1) if len(weight) == 1 else slice(index, index + 1)
            own_bias = None if bias is None else bias[own]
            count = num_frames(length)
            pieces = math.ceil(count / _CHUNK)
            for piece in range(pieces):
                # Pieces of like size: a last piece of a few frames would be slow.
                start, stop = count * piece // pieces, count * (piece + 1) // pieces
                cut = waveforms[index : index + 1, start * HOP : start * HOP + num_samples(stop - start)]
                found[index].append(self._convolve(cut, weight[own], own_bias)[0])
        out = waveforms.new_zeros(batch, frames, self.num_channels)
        for row, parts in zip(out, found, strict=True):
            if parts:
                joined = torch.cat(parts)
                row[: len(joined)] = joined
        return out


def _overwrites(rows: Tensor) -> bool:
    """Whether intermediate results may be overwritten: autograd keeps them, autocast has no in-place products."""
    return not torch.is_grad_enabled() and not torch.is_autocast_enabled(rows.device.type)


def check_geometry(kernels: Sequence[int], strides: Sequence[int]) -> None:
    """Raise ValueError unless the convolutions read 400 samples a frame and step by 320."""
    reach, hop = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        reach, hop = reach + (kernel - 1) * hop, hop * stride
    if (reach, hop) != (RECEPTIVE_FIELD, HOP):
        raise ValueError(
            f"the convolutions must read {RECEPTIVE_FIELD} samples a frame and step by {HOP}, "
            f"but kernels {tuple(kernels)} and strides {tuple(strides)} read {reach} and step by {hop}"
        )
