"""Encoders that compute the products of their transformer in half precision: meant for GPUs, and no longer exact.

The linear layers around attention and of the feed-forward networks are rounded, and attention where it takes their
type. Front end, norms and the sums between layers stay in float32. Each utterance is computed as in float32: on a CPU
alone, on a GPU by products of fixed order, so its features do not depend on its company here either.
"""

from typing import Literal, get_args

import torch
from torch import nn

from spintok.models.encoder import Encoder
from spintok.models.transformer import TransformerLayer

__all__ = ["Precision", "check_precision", "reduced"]

Precision = Literal["float32", "bfloat16", "float16"]

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def check_precision(precision: str) -> Precision:
    """``precision`` itself. Raises ``ValueError`` if there is none of that name."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision {precision!r} is not one of {', '.join(get_args(Precision))}")
    return precision  # type: ignore[return-value]


def reduced(encoder: Encoder, precision: Precision) -> Encoder:
    """A copy of an encoder, for inference only, that shares all weights but those that are rounded.

    Raises:
        ValueError: a weight is too large for float16.
    """
    weights = encoder.state_dict()
    copy = Encoder.from_state(encoder.config, weights).requires_grad_(False)
    # What is no weight was made on the CPU.
    copy.to(next(iter(weights.values())).device)
    for layer in copy.layers:
        assert isinstance(layer, TransformerLayer)
        layer.attention.qkv = _rounded(layer.attention.qkv, precision)
        layer.attention.out = _rounded(layer.attention.out, precision)
        layer.expand = _rounded(layer.expand, precision)
        layer.contract = _rounded(layer.contract, precision)
    return copy


def _rounded(layer: nn.Linear, precision: Precision) -> nn.Linear:
    weight = layer.weight.detach().to(_DTYPES[precision])
    if not bool(weight.isfinite().all()):
        raise ValueError(f"a weight is too large for {precision}: take bfloat16")
    made = nn.Linear(layer.in_features, layer.out_features, device="meta")
    made.weight = nn.Parameter(weight, requires_grad=False)
    # On a GPU it is added to sums in float32.
    made.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)
    return made
