"""Self-attention by torch, for the CPU."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["attend"]


def attend(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, positions: Tensor | None, gate: Tensor | None) -> Tensor:
    """See ``spintok_kernels.attention.attend``."""
    valid = torch.arange(q.shape[1], device=q.device) < lengths[:, None]
    # Without any key the softmax would be 0 / 0: an utterance of no frames attends to its padding.
    keys = (valid | ~valid.any(1, keepdim=True))[:, None, None, :]
    bias = keys
    if positions is not None and gate is not None:
        bias = (gate[..., None] * positions).masked_fill(~keys, -math.inf).to(q.dtype)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2)
    return out.masked_fill(~valid[:, :, None, None], 0.0).contiguous()
