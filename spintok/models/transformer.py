"""The transformer layer of HuBERT, wav2vec 2.0 and WavLM."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Literal

import torch
from spintok_kernels.attention import attend
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from spintok.models.products import fixed_order, linear
from spintok.models.tracing import sliding

__all__ = ["Attention", "Memory", "NormPosition", "RelativePositions", "TransformerLayer"]

NormPosition = Literal["post", "pre"]

Memory = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Puts the keys and values of the past, each (B, heads, P, d), before those of a chunk, each (B, heads, n, d)."""

# Without cuDNN's kernel, which torch prefers on Hopper: it plans anew for every shape, and batches rarely share one.
_CUDA_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class RelativePositions(nn.Module):
    """WavLM's relative position bias: one number per head and bucket of distances; buckets widen with distance.

    Source: Chen et al. 2022, "WavLM", equations 5 and 6, after Raffel et al. 2020, "T5".
    """

    def __init__(self, buckets: int, max_distance: int, heads: int) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.weight = nn.Parameter(torch.empty(buckets, heads))

    def forward(self, frames: int) -> Tensor:
        """The bias (heads, frames, frames) of each query frame for each key frame."""
        distance = torch.arange(1 - frames, frames, device=self.weight.device)
        by_distance = self.weight[self._bucket(distance)].t()
        # Row q of the bias holds the distances -q ... frames - 1 - q.
        return sliding(by_distance, frames, 1).flip(1)

    def _bucket(self, distance: Tensor) -> Tensor:
        half = self.weight.shape[0] // 2
        exact = half // 2
        size = distance.abs()
        # float32, as in the published code: float64 could choose another bucket near a border.
        far = torch.log(size.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        far = (exact + (far * (half - exact)).long()).clamp(max=half - 1)
        return torch.where(size < exact, size, far) + half * (distance > 0)


class Attention(nn.Module):
    """Multi-head self-attention; ``gated`` adds WavLM's gate on the relative position bias.

    There is no dropout on the attention weights, not even in training: with it, torch has no fused kernel for CPUs, and
    a training step takes 1.6 times as long.
    """

    def __init__(self, width: int, heads: int, *, gated: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.gate = nn.Linear(width // heads, 8) if gated else None
        self.gate_scale = nn.Parameter(torch.ones(heads)) if gated else None

    def forward(self, x: Tensor, mask: Tensor | None, positions: Tensor | None, memory: Memory | None = None) -> Tensor:
        """Attend within x (B, T, D), and to what ``memory`` holds.

        Args:
            x: (B, T, D).
            mask: (B, T), True at valid frames, or (B, T, T), True at the keys that each query (row) sees, one at least;
                None if nothing is padded. With ``memory`` (B, P + T).
            positions: the relative position bias (heads, T, T), or None.
            memory: what is kept of the past; None without one.

        Returns:
            (B, T, D).
        """
        batch, frames, width = x.shape
        qkv = linear(self.qkv, x, dtype=self.qkv.weight.dtype).view(batch, frames, 3, self.heads, -1)
        # Which keys each query sees, as in streaming, only torch's attention can be told.
        if fixed_order(x) and memory is None and (mask is None or mask.ndim == 2):
            lengths = x.new_full((batch,), frames, dtype=torch.int64) if mask is None else mask.sum(1)
            gate = None if positions is None else self._gate(x)
            q, k, v = qkv.unbind(2)
            out = attend(q, k, v, lengths, positions, gate)
            return linear(self.out, out.flatten(2), dtype=x.dtype)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if memory is not None:
            k, v = memory(k, v)
        bias: Tensor | None = None
        if mask is not None:
            bias = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
        if positions is not None:
            gated = self._gate(x)[..., None] * positions
            bias = gated if bias is None else gated.masked_fill(~bias, -math.inf)
            bias = bias.to(q.dtype)
        in_training = q.dtype is torch.bfloat16 and x.device.type == "cpu" and torch.is_grad_enabled()
        if in_training or torch.compiler.is_exporting():
            out = _attend_in_steps(q, k, v, bias)
        else:
            with sdpa_kernel(_CUDA_KERNELS) if x.is_cuda else nullcontext():
                out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return linear(self.out, out.transpose(1, 2).reshape(batch, frames, width), dtype=x.dtype)

    def _gate(self, x: Tensor) -> Tensor:
        """The gate (B, heads, T) of the position bias. Source: Chen et al. 2022, equations 7 and 8."""
        assert self.gate is not None
        assert self.gate_scale is not None
        split = x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)
        parts = linear(self.gate, split).unflatten(-1, (2, 4))
        if fixed_order(x):
            # The order of `sum` may depend on the batch.
            a, b, c, d = parts.unbind(-1)
            summed = a + b + c + d
        else:
            summed = parts.sum(-1)
        update, reset = summed.sigmoid().unbind(-1)
        gate: Tensor = update * (reset * self.gate_scale[:, None] - 1.0) + 2.0
        return gate


def _attend_in_steps(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention as separate matrix products, for training in bfloat16 on a CPU, and for export.

    The gradient of torch's fused kernel takes 1.4 (700 frames) to 3 times (125 frames) as long as that of these
    products, which oneDNN computes on AMX.
    """
    with torch.autocast("cpu", enabled=False):
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if bias is not None:
            if bias.dtype is torch.bool:
                bias = scores.new_zeros(()).masked_fill(~bias, -math.inf)
            scores = scores + bias
        attended: Tensor = scores.softmax(-1) @ v
        return attended


class TransformerLayer(nn.Module):
    """Attention and a feed-forward network, each with a residual connection and a layer norm after or before it."""

    def __init__(
        self,
        width: int,
        heads: int,
        feed_forward: int,
        *,
        norm_position: NormPosition,
        eps: float,
        dropout: float,
        gated: bool,
    ) -> None:
        super().__init__()
        self.norm_position = norm_position
        self.dropout = dropout
        self.attention = Attention(width, heads, gated=gated)
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.expand = nn.Linear(width, feed_forward)
        self.contract = nn.Linear(feed_forward, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor, mask: Tensor | None, positions: Tensor | None, memory: Memory | None = None) -> Tensor:
        """x (B, T, D) to (B, T, D), with ``mask``, ``positions`` and ``memory`` as in ``Attention``."""
        return self.both(x, mask, positions, memory)[0]

    def both(
        self, x: Tensor, mask: Tensor | None, positions: Tensor | None, memory: Memory | None = None
    ) -> tuple[Tensor, Tensor]:
        """The output, and what the feed-forward network adds to get it; arguments as in ``forward``."""
        if self.norm_position == "pre":
            x = x + self._drop(self.attention(self.attention_norm(x), mask, positions, memory))
            added = self._feed_forward(self.feed_forward_norm(x))
            return x + added, added
        x = self.attention_norm(x + self._drop(self.attention(x, mask, positions, memory)))
        added = self._feed_forward(x)
        return self.feed_forward_norm(x + added), added

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self._drop(
            linear(self.contract, linear(self.expand, x, gelu=True, dtype=self.expand.weight.dtype), dtype=x.dtype)
        )

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.training and self.dropout > 0 else x
