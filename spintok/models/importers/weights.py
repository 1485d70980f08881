"""Weights of any origin under one set of names, and the architecture that follows from their shapes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from spintok.models.config import EncoderConfig
from spintok.serialization import is_finite

__all__ = ["CheckpointError", "assemble", "check_weights", "geometry", "rename", "usual_heads"]

Rules = Sequence[tuple[str, str]]


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message is one line: the cause and, if there is one, the fix."""


def check_weights(weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not floating-point numbers, or of which one is NaN or infinite.

    Raises:
        CheckpointError: the message names the first such weight.
    """
    for name, tensor in weights.items():
        if not tensor.is_floating_point():
            raise CheckpointError(f"{name} has the dtype {tensor.dtype}, not a floating-point one")
        if not is_finite(tensor):
            raise CheckpointError(f"{name} has weights that are NaN or infinite")


def rename(state: Mapping[str, Any], rules: Rules) -> dict[str, Tensor]:
    """The tensors whose whole name matches a rule (pattern, replacement), under their new names.

    Other tensors (heads, quantizers, label embeddings) are left out.

    Raises:
        CheckpointError: a transformer layer or the positional convolution has a part that no rule matches, so the
            encoder computes something that spintok's encoders do not compute; or a weight is no tensor.
    """
    named: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for pattern, replacement in rules:
            if match := re.fullmatch(pattern, name):
                if not isinstance(tensor, Tensor):
                    raise CheckpointError(f"{name} is a {type(tensor).__name__}, not a tensor")
                named[match.expand(replacement)] = tensor
                break
        else:
            if re.search(r"(^|\.)encoder\.(transformer\.)?(layers|pos_conv)", name):
                raise CheckpointError(f"its encoder has a part that spintok's encoders do not have: {name[:200]}")
    return named


def geometry(named: Mapping[str, Tensor]) -> dict[str, Any]:
    """The fields of ``EncoderConfig`` that follow from the shapes of renamed weights.

    Raises:
        CheckpointError: a part of the encoder is missing or has the wrong number of dimensions.
    """
    convolutions = _numbered(named, "front_end.layers")
    shapes = [_shape(named, f"front_end.layers.{i}.weight", 3) for i in range(convolutions)]
    layers = _numbered(named, "layers")
    stack = _numbered(named, "positional.convs")
    names = ("positional.convs.0.weight",) if stack else ("positional.weight_v", "positional.weight")
    positional = _shape(named, next((name for name in names if name in named), names[-1]), 3)
    found = {
        "conv_channels": tuple(shape[0] for shape in shapes),
        "conv_kernels": tuple(shape[2] for shape in shapes),
        "conv_bias": "front_end.layers.0.bias" in named,
        "conv_norm": "layer" if "front_end.layers.1.norm.weight" in named else "group",
        "feature_norm": "feature_norm.weight" in named,
        "projection": "projection.weight" in named,
        "width": positional[0],
        "feed_forward": _shape(named, "layers.0.expand.weight", 2)[0] if layers else 1,
        "layers": layers,
        "positional_kernel": positional[2],
        "positional_groups": positional[0] // max(positional[1], 1),
        "positional_stack": stack,
        "position_buckets": 0,
    }
    if "positions.weight" in named:
        found["position_buckets"], found["heads"] = _shape(named, "positions.weight", 2)
    return found


def usual_heads(width: int) -> int:
    """The number of attention heads of published models of this width, for checkpoints that do not state it.

    Raises:
        CheckpointError: no published model has this width.
    """
    known = {768: 12, 1024: 16, 1280: 16}
    if width not in known:
        raise CheckpointError(
            f"it does not state its number of attention heads, and no published model has the width {width}: "
            "pass heads= to load_encoder"
        )
    return known[width]


def assemble(named: Mapping[str, Tensor], config: EncoderConfig) -> dict[str, Tensor]:
    """Renamed weights as the state dict of ``spintok.models.encoder.Encoder``, in float32.

    Query, key and value become one matrix, convolution weights become (kernel, in, out), and the weight norm of the
    positional convolution, with one norm per kernel position, is folded into its weight.

    Raises:
        CheckpointError: a weight is missing, has an impossible shape, or is not finite.
    """
    try:
        check_weights(named)
        return _assemble(named, config)
    except KeyError as error:
        raise CheckpointError(f"it does not hold a complete encoder: {error.args[0]} is missing") from None
    except RuntimeError as error:
        raise CheckpointError(f"its weights do not fit together: {str(error).splitlines()[0]}") from None


def _assemble(named: Mapping[str, Tensor], config: EncoderConfig) -> dict[str, Tensor]:
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
        elif name.startswith("norm.") and config.norm_position == "pre" and not config.final_norm:
            # It follows the last layer and belongs to none.
            continue
        elif name.endswith(".gate_scale"):
            state[name] = tensor.flatten()
        else:
            state[name] = tensor
    return state


def _shape(named: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in named:
        raise CheckpointError(f"it does not hold a complete encoder: {name} is missing")
    shape = tuple(named[name].shape)
    if len(shape) != dimensions:
        raise CheckpointError(f"{name} must have {dimensions} dimensions, but its shape is {shape}")
    return shape


def _numbered(named: Mapping[str, Tensor], prefix: str) -> int:
    """How many parts ``prefix.0``, ``prefix.1``, ... there are."""
    found = {int(m[1]) for name in named if (m := re.match(re.escape(prefix) + r"\.(\d{1,9})\.", name))}
    if found != set(range(len(found))):
        raise CheckpointError(f"its {prefix} are not numbered from 0 without gaps: {sorted(found)[:20]}")
    return len(found)
