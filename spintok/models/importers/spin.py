"""Checkpoints that Spin's authors released: encoder, head and codebook in one PyTorch Lightning file.

Source of the names: github.com/vectominist/spin, ``src/model/spin.py`` and ``src/nn``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from spintok.models.config import EncoderConfig
from spintok.models.importers.fairseq import convert_fairseq
from spintok.models.importers.read import plain
from spintok.models.importers.weights import CheckpointError, check_weights

__all__ = ["SpinCheckpoint", "from_spin", "is_spin"]

_ENCODER = "encoder.model."
_CODEBOOK = "loss_module.codebook.weight"


@dataclass(frozen=True)
class SpinCheckpoint:
    """The parts of a Spin tokenizer.

    Attributes:
        config, encoder_state: the arguments of ``Encoder.from_state``, without the layers above ``layer``.
        projection_weight, projection_bias: (E, D) and (E,) of the head, which precedes the L2 normalisation.
        codewords: (K, E) as stored, which may be one training step away from unit length.
        layer: the layer that the head reads.
    """

    config: EncoderConfig
    encoder_state: dict[str, Tensor]
    projection_weight: Tensor
    projection_bias: Tensor
    codewords: Tensor
    layer: int


def is_spin(values: Mapping[str, Any]) -> bool:
    """Whether this is a Lightning checkpoint of Spin, or the state dict of one."""
    return _CODEBOOK in _weights(values)


def from_spin(values: Mapping[str, Any]) -> SpinCheckpoint:
    """The parts of a Spin checkpoint.

    Raises:
        CheckpointError: a part is missing or damaged, or the model computes what spintok's tokenizers do not.
    """
    weights = _weights(values)
    model = _model_settings(values)
    encoder = model.get("encoder")
    encoder = encoder if isinstance(encoder, dict) else {}
    _check_settings(model, encoder)
    heads = sorted(
        str(name) for name in weights if str(name).startswith("pred_head.") and str(name).endswith(".weight")
    )
    if heads != ["pred_head.layers.0.weight"] or "pred_head.layers.0.bias" not in weights:
        raise CheckpointError(
            f"its head is not the single linear layer of Spin's recipe: {', '.join(heads)[:200] or 'none'}"
        )
    inner = {name.removeprefix(_ENCODER): value for name, value in weights.items() if name.startswith(_ENCODER)}
    config, state = convert_fairseq(inner, {})
    layer = encoder.get("use_layer", config.layers)
    if not isinstance(layer, int) or not 0 < layer <= config.layers:
        raise CheckpointError(f"its head reads layer {str(layer)[:80]}, but the encoder has {config.layers}")
    config = config.truncated(layer)
    head = _head(weights, config.width)
    return SpinCheckpoint(
        config=config,
        encoder_state={
            name: value
            for name, value in state.items()
            if not name.startswith("layers.") or int(name.split(".")[1]) < layer
        },
        projection_weight=head["pred_head.layers.0.weight"],
        projection_bias=head["pred_head.layers.0.bias"],
        codewords=head[_CODEBOOK],
        layer=layer,
    )


def _model_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The section ``model`` of the configuration, which Lightning stores whole or as an argument ``config``."""
    settings: Any = plain(values.get("hyper_parameters", {}))
    for name in ("config", "model"):
        if isinstance(settings, dict) and (name == "model" or name in settings):
            settings = settings.get(name, {})
    return settings if isinstance(settings, dict) else {}


def _check_settings(model: Mapping[str, Any], encoder: Mapping[str, Any]) -> None:
    """Refuse settings with which Spin computes something else than its recipe."""
    if any((model.get("normalize"), encoder.get("normalize"), encoder.get("pre_normalize"))):
        raise CheckpointError("it was trained with an additional normalisation of waveforms or features")
    if encoder.get("feat_select", "x") not in ("x", "hidden"):
        raise CheckpointError("its head reads the inside of a layer, not a layer's output")
    if model.get("disable_pos") or encoder.get("disable_pos"):
        raise CheckpointError("its encoder has no positional convolution (disable_pos), which spintok's encoders have")
    head = model.get("pred_head")
    if isinstance(head, dict) and head.get("activate_last"):
        raise CheckpointError("its head ends in an activation (activate_last), which spintok's codebooks do not have")


def _head(weights: Mapping[str, Any], width: int) -> dict[str, Tensor]:
    """The weights of the head and the codewords in float32, whose shapes fit ``width`` features."""
    names = ("pred_head.layers.0.weight", "pred_head.layers.0.bias", _CODEBOOK)
    head = {name: weights[name] for name in names}
    for name, tensor in head.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{name} is not a tensor")
    check_weights(head)
    shapes = [tuple(tensor.shape) for tensor in head.values()]
    projection, bias, codewords = shapes
    if len(codewords) != 2 or 0 in codewords or projection != (codewords[1], width) or bias != (codewords[1],):
        raise CheckpointError(
            f"its head and codebook do not fit an encoder of width {width}: their shapes are {shapes}"
        )
    return {name: tensor.float() for name, tensor in head.items()}


def _weights(values: Mapping[str, Any]) -> Mapping[str, Any]:
    found = values.get("state_dict", values)
    return {name: value for name, value in found.items() if isinstance(name, str)} if isinstance(found, Mapping) else {}
