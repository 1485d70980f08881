"""The positional convolution of HuBERT, wav2vec 2.0 and WavLM: a kernel of 128 frames, in 16 groups of channels."""

import torch
from spintok_kernels.linear import linear as fixed_linear
from torch import Tensor, nn
from torch.nn import functional as F

from spintok.models.products import fixed_order

__all__ = ["PositionalConv", "PositionalStack"]


class PositionalConv(nn.Conv1d):
    """A convolution over time that keeps the number of frames, and GELU: (B, T, D) to (B, T, D).

    On a CPU, outside of training, it multiplies the spectra of overlapping blocks (overlap-save). This takes a sixth of
    the time of the direct sum, with the same rounding error. On a GPU, outside of training, it is a product of fixed
    order (``spintok.models.products``).
    """

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__(width, width, kernel, padding=kernel // 2, groups=groups)
        # The weight and its spectrum (frequencies, groups, in, out), to compute the spectrum only once.
        self._spectrum: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor, chunk: int | None = None) -> Tensor:
        """Convolve x (B, T, D), which must be zero where padded.

        With a ``chunk`` the taps of a frame end with its chunk of so many frames.
        """
        if chunk is not None:
            return self._by_chunks(x, chunk)
        if fixed_order(x):
            return self._by_rows(x)
        by_spectra = (
            x.device.type == "cpu"
            and x.dtype == torch.float32
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
        )
        if by_spectra:
            return F.gelu(self._by_spectra(x))
        x = x.transpose(1, 2)
        # With an even kernel there is one frame too many.
        return F.gelu(self._by_taps(x, self.weight.shape[2] // 2)[:, :, : x.shape[2]]).transpose(1, 2)

    def _by_chunks(self, x: Tensor, chunk: int) -> Tensor:
        batch, frames, width = x.shape
        kernel = self.weight.shape[2]
        before = kernel // 2
        # Each chunk with the frames before it; zeros stand for those after it.
        padded = F.pad(x.transpose(1, 2), (before, -frames % chunk))
        chunks = padded.unfold(2, before + chunk, chunk).transpose(1, 2).flatten(0, 1)
        out = F.gelu(self._by_taps(F.pad(chunks, (0, kernel - 1 - before)), 0))
        return out.view(batch, -1, width, chunk).transpose(2, 3).flatten(1, 2)[:, :frames]

    def _by_rows(self, x: Tensor) -> Tensor:
        """GELU of the convolution as one product a group, of rows that overlap: the taps of consecutive frames."""
        batch, frames, _ = x.shape
        outputs, inner, kernel = self.weight.shape
        before, length = kernel // 2, frames + kernel - 1
        # Utterances follow each other, and the rows that read across a border are cut off.
        padded = F.pad(x, (0, 0, before, kernel - 1 - before)).view(batch * length, -1, inner)
        signal = F.pad(padded.transpose(0, 1), (0, 0, 0, kernel - 1)).flatten(1)
        weight = self.weight.view(self.groups, -1, inner, kernel).transpose(2, 3).flatten(2)
        bias = None if self.bias is None else self.bias.view(self.groups, -1)
        rows = fixed_linear(signal.unfold(1, kernel * inner, inner), weight, bias, gelu=True)
        out = rows.view(self.groups, batch, length, -1)[:, :, :frames]
        return out.permute(1, 2, 0, 3).reshape(batch, frames, outputs)

    def after(self, past: Tensor, x: Tensor) -> Tensor:
        """Convolve a chunk x (B, n, D) that comes after ``past`` (B, kernel // 2, D): (B, n, D)."""
        kernel = self.weight.shape[2]
        heard = torch.cat([past, x], 1).transpose(1, 2)
        return F.gelu(self._by_taps(F.pad(heard, (0, kernel - 1 - kernel // 2)), 0)).transpose(1, 2)

    def _by_taps(self, x: Tensor, padding: int) -> Tensor:
        """The direct sum over x (B, D, T), with zeros on both sides."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        if x.device.type != "cpu" or dtype != torch.bfloat16 or self.weight.shape[1] >= 16:
            return F.conv1d(x, self.weight, self.bias, padding=padding, groups=self.groups)
        # oneDNN 3.12 (torch 2.13) computes wrong results here on processors with AMX.
        with torch.autocast("cpu", enabled=False):
            bias = None if self.bias is None else self.bias.float()
            out = F.conv1d(x.float(), self.weight.float(), bias, padding=padding, groups=self.groups)
        return out.to(dtype)

    def _by_spectra(self, x: Tensor) -> Tensor:
        batch, frames, width = x.shape
        kernel, inner = self.weight.shape[2], self.weight.shape[1]
        size = 2 * kernel
        step = size - kernel + 1
        blocks = -(-frames // step)
        before = kernel // 2
        after = blocks * step + kernel - 1 - before - frames
        # A block of `size` frames gives the `step` outputs whose taps are all inside the block.
        padded = F.pad(x.transpose(1, 2), (before, after)).view(batch, self.groups, inner, -1)
        spectra = torch.fft.rfft(padded.unfold(3, size, step))
        products = spectra.permute(4, 1, 0, 3, 2).flatten(2, 3) @ self._weight_spectrum(size)
        out: Tensor = torch.fft.irfft(products.permute(1, 3, 2, 0), n=size)[..., kernel - 1 :]
        out = out.reshape(width, batch, blocks * step)[:, :, :frames].permute(1, 2, 0)
        return out if self.bias is None else out + self.bias

    def _weight_spectrum(self, size: int) -> Tensor:
        weight = self.weight.detach()
        # Compare the weight itself: nothing cheaper detects every way of changing it.
        if self._spectrum is None or not torch.equal(self._spectrum[0], weight):
            spectrum = torch.fft.rfft(weight.flip(2), n=size).unflatten(0, (self.groups, -1))
            self._spectrum = (weight.clone(), spectrum.permute(3, 0, 2, 1).contiguous())
        return self._spectrum[1]


class PositionalStack(nn.Module):
    """The positional convolutions of data2vec, each with a plain layer norm, and GELU: (B, T, D) to (B, T, D).

    Every utterance is convolved alone: their biases and norms would carry what is in the padding into its last frames.
    Source: Baevski et al. 2022, "data2vec", and transformers' ``Data2VecAudioModel``.
    """

    def __init__(self, width: int, kernel: int, groups: int, layers: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups) for _ in range(layers)
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Convolve x (B, T, D), of which ``mask`` (B, T) marks the valid frames; padded frames are zero."""
        lengths = [x.shape[1]] * len(x) if mask is None else mask.sum(1).tolist()
        rows = [self._one(row[None, :length])[0] for row, length in zip(x, lengths, strict=True)]
        return torch.stack([F.pad(row, (0, 0, 0, x.shape[1] - row.shape[0])) for row in rows])

    def _one(self, x: Tensor) -> Tensor:
        if x.shape[1] == 0:
            return x
        frames = x.shape[1]
        for conv in self.convs:
            # With an even kernel there is one frame too many.
            x = conv(x.transpose(1, 2))[:, :, :frames].transpose(1, 2)
            x = F.gelu(F.layer_norm(x, x.shape[2:]))
        return x
