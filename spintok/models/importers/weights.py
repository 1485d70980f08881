"""Weights under one set of names, whatever their origin, and the architecture their shapes tell."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from spintok.models.transformer import NormPosition

__all__ = ["CheckpointError", "assemble", "geometry", "rename", "usual_heads"]

Rules = Sequence[tuple[str, str]]


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one line: the cause and, if any, the fix."""


def rename(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Tensors whose whole name matches a rule (pattern, replacement), under their new names.

    Other tensors (heads, quantizers, label embeddings) are left out.

    Raises:
        CheckpointError: a transformer layer or positional convolution has a part that no rule knows, so the
            encoder computes something else than spintok's.
    """
    named: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for pattern, replacement in rules:
            if match := re.fullmatch(pattern, name):
                named[match.expand(replacement)] = tensor
                break
        else:
            if re.search(r"(^|\.)encoder\.(transformer\.)?(layers|pos_conv)", name):
                raise CheckpointError(f"its encoder has a part that spintok's encoders do not have: {name}")
    return named


def geometry(named: Mapping[str, Tensor]) -> dict[str, Any]:
    """The fields of ``EncoderConfig`` that the shapes of renamed weights tell.

    Raises:
        CheckpointError: a part of an encoder is missing.
    """
    try:
        convolutions = _numbered(named, "front_end.layers")
        shapes = [named[f"front_end.layers.{i}.weight"].shape for i in range(convolutions)]
        layers = _numbered(named, "layers")
        positional = named["positional.weight_v" if "positional.weight_v" in named else "positional.weight"]
        width = positional.shape[0]
        expand = named["layers.0.expand.weight"] if layers else torch.empty(1)
    except KeyError as error:
        raise CheckpointError(f"it holds no whole SSL encoder: {error.args[0]} is missing") from None
    found = {
        "conv_channels": tuple(shape[0] for shape in shapes),
        "conv_kernels": tuple(shape[2] for shape in shapes),
        "conv_bias": "front_end.layers.0.bias" in named,
        "conv_norm": "layer" if "front_end.layers.1.norm.weight" in named else "group",
        "feature_norm": "feature_norm.weight" in named,
        "projection": "projection.weight" in named,
        "width": width,
        "feed_forward": expand.shape[0],
        "layers": layers,
        "positional_kernel": positional.shape[2],
        "positional_groups": width // positional.shape[1],
        "position_buckets": len(named["positions.weight"]) if "positions.weight" in named else 0,
    }
    if "positions.weight" in named:
        found["heads"] = named["positions.weight"].shape[1]
    return found


def usual_heads(width: int) -> int:
    """Attention heads of the published models of a width, for checkpoints that do not tell.

    Raises:
        CheckpointError: no published model has this width.
    """
    known = {768: 12, 1024: 16, 1280: 16}
    if width not in known:
        raise CheckpointError(
            f"it does not tell its number of attention heads, and no published model is {width} wide: "
            "pass heads= to load_encoder"
        )
    return known[width]


def assemble(named: Mapping[str, Tensor], norm_position: NormPosition) -> dict[str, Tensor]:
    """Renamed weights as ``spintok.models.encoder.Encoder`` holds them, float32.

    Query, key and value become one matrix, convolution weights are laid out (kernel, in, out), and the weight
    norm of the positional convolution, a norm for each of the kernel's positions, is folded.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in named.items():
        tensor = tensor.detach().to("cpu", torch.float32)
        if re.fullmatch(r"front_end\.layers\.\d+\.weight", name):
            state[name] = tensor.permute(2, 1, 0).contiguous()
        elif name == "positional.weight_v":
            scale = named["positional.weight_g"].detach().to("cpu", torch.float64)
            exact = tensor.double()
            state["positional.weight"] = (exact * (scale / exact.norm(dim=(0, 1), keepdim=True))).float()
        elif name == "positional.weight_g":
            continue
        elif match := re.fullmatch(r"(layers\.\d+\.attention\.)q\.(weight|bias)", name):
            start, end = match.groups()
            parts = [tensor, *(named[f"{start}{part}.{end}"].to("cpu", torch.float32) for part in "kv")]
            state[f"{start}qkv.{end}"] = torch.cat([part.detach() for part in parts])
        elif re.fullmatch(r"layers\.\d+\.attention\.[kv]\.(weight|bias)", name):
            continue
        elif name.startswith("norm.") and norm_position == "pre":
            # It follows the last layer and is part of none.
            continue
        elif name.endswith(".gate_scale"):
            state[name] = tensor.flatten()
        else:
            state[name] = tensor
    return state


def _numbered(named: Mapping[str, Tensor], prefix: str) -> int:
    """How many parts ``prefix.0``, ``prefix.1``, ... there are."""
    found = {int(m[1]) for name in named if (m := re.match(re.escape(prefix) + r"\.(\d+)\.", name))}
    if found != set(range(len(found))):
        raise CheckpointError(f"its {prefix} are not numbered from 0 without gaps: {sorted(found)}")
    return len(found)
