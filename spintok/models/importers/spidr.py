"""Checkpoints of SpidR and DinoSR, as the library spidr writes them.

Both are HuBERT-like students: convolutions with layer norms, five positional convolutions as in data2vec, layers with
norms after the residuals. The features of a layer are what its feed-forward network adds
(``get_intermediate_outputs``), and waveforms have zero mean and unit variance. SpidR also predicts a code from the
features of each upper layer: its units. DinoSR has the same weights under the same names, but predicts all codes from
its last output. The two are told apart by the norm after the last layer: training of SpidR never uses its output, so it
is as it was made, while all that DinoSR learns goes through it.

Source of the names: github.com/facebookresearch/spidr, ``models/components.py`` and ``models/spidr.py``; Poli et al.
2025, "SpidR: Learning Fast and Stable Linguistic Units for Spoken Language Models Without Supervision".
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spintok.models.config import EncoderConfig
from spintok.models.importers.weights import CheckpointError, assemble, check_weights, geometry, rename, usual_heads

__all__ = ["SpidrUnits", "from_spidr", "is_spidr", "units_of_spidr"]

_LAYER = r"student\.layers\.(\d+)\."
RULES = [
    (r"feature_extractor\.conv_layers\.(\d+)\.conv\.(\w+)", r"front_end.layers.\1.\2"),
    (r"feature_extractor\.conv_layers\.(\d+)\.layer_norm\.(\w+)", r"front_end.layers.\1.norm.\2"),
    (r"feature_projection\.layer_norm\.(\w+)", r"feature_norm.\1"),
    (r"feature_projection\.projection\.(\w+)", r"projection.\1"),
    (r"student\.pos_conv_embed\.convs\.(\d+)\.(\w+)", r"positional.convs.\1.\2"),
    (r"student\.layer_norm\.(\w+)", r"norm.\1"),
    (_LAYER + r"attention\.qkv\.(\w+)", r"layers.\1.attention.qkv.\2"),
    (_LAYER + r"attention\.proj\.(\w+)", r"layers.\1.attention.out.\2"),
    (_LAYER + r"layer_norm\.(\w+)", r"layers.\1.attention_norm.\2"),
    (_LAYER + r"feed_forward\.intermediate_dense\.(\w+)", r"layers.\1.expand.\2"),
    (_LAYER + r"feed_forward\.output_dense\.(\w+)", r"layers.\1.contract.\2"),
    (_LAYER + r"final_layer_norm\.(\w+)", r"layers.\1.feed_forward_norm.\2"),
]


@dataclass(frozen=True)
class SpidrUnits:
    """The predictor of a layer's codes: the code of a frame is the largest of ``weight @ features + bias``.

    Attributes:
        weight, bias: (K, D) and (K,), float32.
    """

    weight: Tensor
    bias: Tensor


def is_spidr(values: Mapping[str, Any]) -> bool:
    """Whether this is a checkpoint of SpidR or DinoSR, or the state dict of one."""
    return any(name.startswith("student.pos_conv_embed.") for name in _weights(values))


def from_spidr(values: Mapping[str, Any], *, heads: int | None = None) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """The student of a checkpoint. Its settings are those of the published models, as a file states none.

    Args:
        values: the contents of the file.
        heads: the number of attention heads, for a width that no published model has.

    Raises:
        CheckpointError: the encoder is incomplete, has other parts, or ``heads`` must be given.
    """
    weights = {name: tensor for name, tensor in _weights(values).items() if re.match(r"feature_|student\.", name)}
    named = rename(weights, RULES)
    if len(named) < len(weights):
        known = [pattern for pattern, _ in RULES]
        other = next(name for name in weights if not any(re.fullmatch(pattern, name) for pattern in known))
        raise CheckpointError(f"its encoder has a part that spintok's encoders do not have: {other[:200]}")
    shapes = geometry(named)
    if len(shapes["conv_channels"]) != len(EncoderConfig.conv_strides) or shapes["conv_norm"] != "layer":
        raise CheckpointError("its convolutions are not those of the published models, whose strides are assumed")
    config = EncoderConfig(
        **{
            **shapes,
            "heads": heads or usual_heads(shapes["width"]),
            "normalize_waveform": True,
            "waveform_eps": 1e-5,
            "feed_forward_output": True,
        }
    )
    for layer in range(config.layers):
        # The published models have no biases there.
        named.setdefault(f"layers.{layer}.attention.qkv.bias", torch.zeros(3 * config.width))
    return config, assemble(named, config)


def units_of_spidr(values: Mapping[str, Any], layer: int) -> SpidrUnits:
    """The predictor of the codes of ``layer``, counted from 1, in a checkpoint of SpidR.

    Raises:
        CheckpointError: the layer has none, it is damaged, or the checkpoint is one of DinoSR.
    """
    weights = _weights(values)
    layers = {int(match[1]) for name in weights if (match := re.match(_LAYER, name))}
    if _has_trained_last_norm(weights, len(layers)):
        raise CheckpointError(
            "it is a checkpoint of DinoSR, not of SpidR: the norm after its last layer is trained. spintok does not "
            "compute DinoSR's own codes; --centroids takes a K-means of its features"
        )
    predictors = {int(match[1]) for name in weights if (match := re.fullmatch(r"heads\.(\d+)\.0\.weight", name))}
    first = len(layers) - len(predictors) + 1
    if not first <= layer <= len(layers):
        raise CheckpointError(f"its layers {first} ... {len(layers)} have units, layer {layer} has none")
    found = [weights.get(f"heads.{layer - first}.0.{part}") for part in ("weight", "bias")]
    weight, bias = found
    if (
        not isinstance(weight, Tensor)
        or not isinstance(bias, Tensor)
        or weight.ndim != 2
        or bias.shape != weight.shape[:1]
    ):
        raise CheckpointError(f"its predictor of the codes of layer {layer} is damaged")
    check_weights({"heads.weight": weight, "heads.bias": bias})
    return SpidrUnits(weight.float(), bias.float())


def _has_trained_last_norm(weights: Mapping[str, Any], layers: int) -> bool:
    weight, bias = (weights.get(f"student.layers.{layers - 1}.final_layer_norm.{part}") for part in ("weight", "bias"))
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor) or not weight.numel():
        # Whoever reads the encoder says what is missing.
        return False
    return not (bool((weight == weight.flatten()[0]).all()) and bool((bias == 0).all()))


def _weights(values: Mapping[str, Any]) -> dict[str, Any]:
    """The weights of a training checkpoint or a state dict, without the prefix of parallel training."""
    found = values.get("model", values)
    if not isinstance(found, Mapping):
        return {}
    return {name.removeprefix("module."): value for name, value in found.items() if isinstance(name, str)}
