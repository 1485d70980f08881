"""One convolution of the front end, as matrix products.

Activations are stored frame by frame, (frames, channels). A strided convolution then is a few matrix products on views
of its input, without im2col and without transposes around the layer norms.
"""

import torch
from spintok_kernels.linear import linear as fixed_linear
from torch import Tensor, nn
from torch.nn import functional as F

from spintok.models.products import fixed_order

__all__ = ["ConvLayer"]


class ConvLayer(nn.Module):
    """A convolution, its normalisation and GELU: (frames, in) to (frames, out).

    ``weight`` is (kernel, in, out). ``norm`` holds the scale and shift of the group norm or layer norm, if any.
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
        if fixed_order(rows):
            return self._in_fixed_order(rows)
        in_pairs = (self.kernel, self.stride) == (3, 2) and rows.device.type == "cpu" and _overwrites(rows)
        return self.activate(self._in_pairs(rows) if in_pairs else self._products(rows))

    def _in_fixed_order(self, rows: Tensor) -> Tensor:
        """One product of rows that overlap: `kernel` frames are contiguous in memory."""
        width = rows.shape[1]
        taps = rows.contiguous().flatten().unfold(0, self.kernel * width, self.stride * width)
        weight = self.weight.flatten(0, 1).t()
        if self.norm is None:
            return fixed_linear(taps, weight, self.bias, gelu=True)
        return self.activate(fixed_linear(taps, weight, self.bias))

    def _products(self, rows: Tensor) -> Tensor:
        """The convolution as one matrix product per ``stride`` taps, on views of the rows."""
        count = (rows.shape[0] - self.kernel) // self.stride + 1
        out: Tensor | None = None
        for tap in range(0, self.kernel, self.stride):
            if tap + self.stride <= self.kernel:
                # `stride` taps at once: the input rows, viewed in groups of `stride`.
                block = rows[tap : tap + self.stride * count].reshape(count, -1)
                out = self._add(out, block, self.weight[tap : tap + self.stride].flatten(0, 1))
            else:
                for left in range(tap, self.kernel):
                    out = self._add(out, rows[left :: self.stride][:count], self.weight[left])
        assert out is not None
        return out

    def _in_pairs(self, rows: Tensor) -> Tensor:
        """Same result for kernel 3 and stride 2 with a sixth fewer operations: two outputs share one product.

        The outputs of the inputs a b c and c d e are (a - c) W0 + b W1 + c (W0 + W2) and
        c (W0 + W2) + d W1 + (e - c) W2. The rounding error is about twice that of ``_products``.
        Source: Winograd 1980, "Arithmetic Complexity of Computations", F(2, 2).
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
        """Layer norm if there is one, then GELU."""
        if self.norm is not None:
            rows = self.norm(rows)
        return F.gelu(rows) if torch.is_grad_enabled() else torch.ops.aten.gelu_(rows)

    def _add(self, out: Tensor | None, rows: Tensor, weight: Tensor) -> Tensor:
        if out is not None:
            return out.addmm_(rows, weight) if _overwrites(rows) else torch.addmm(out, rows, weight)
        return rows @ weight if self.bias is None else torch.addmm(self.bias, rows, weight)


def _overwrites(rows: Tensor) -> bool:
    """Whether intermediate results may be overwritten: autograd needs them, and autocast has no in-place products."""
    return not torch.is_grad_enabled() and not torch.is_autocast_enabled(rows.device.type)
