"""The checkpoints that Spin's authors released: encoder, head and codebook in one PyTorch Lightning file.

Source of the names: github.com/vectominist/spin, ``src/model/spin.py`` and ``src/nn``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from spintok.models.config import EncoderConfig
from spintok.models.importers.fairseq import convert_fairseq
from spintok.models.importers.read import plain
from spintok.models.importers.weights import CheckpointError

__all__ = ["SpinCheckpoint", "from_spin", "is_spin"]

_ENCODER = "encoder.model."
_CODEBOOK = "loss_module.codebook.weight"


@dataclass(frozen=True)
class SpinCheckpoint:
    """A Spin tokenizer's parts.

    Attributes:
        config, encoder_state: of ``Encoder.from_state``; layers above ``layer`` are left out.
        projection_weight (E, D), projection_bias (E,): of the head, before the L2 norm.
        codewords (K, E): as they are in the file, up to a training step away from unit norm.
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
        CheckpointError: a part is missing, or the model does what spintok's tokenizers do not do.
    """
    weights = _weights(values)
    settings = plain(values.get("hyper_parameters", {}))
    # Lightning keeps the whole configuration, or the configuration as its one argument.
    settings = settings.get("config", settings) if isinstance(settings, dict) else {}
    model = settings.get("model", {})
    encoder = model.get("encoder", {})
    if any((model.get("normalize"), encoder.get("normalize"), encoder.get("pre_normalize"))):
        raise CheckpointError(
            "it was trained with an extra normalisation of waveforms or features, unlike Spin's recipe"
        )
    if encoder.get("feat_select", "x") not in ("x", "hidden"):
        raise CheckpointError("its head reads the inside of a layer, not a layer's output, unlike Spin's recipe")
    heads = sorted(name for name in weights if name.startswith("pred_head.") and name.endswith(".weight"))
    if heads != ["pred_head.layers.0.weight"] or "pred_head.layers.0.bias" not in weights:
        raise CheckpointError(f"its head is not the one linear map of Spin's recipe: {', '.join(heads) or 'none'}")
    inner = {name.removeprefix(_ENCODER): value for name, value in weights.items() if name.startswith(_ENCODER)}
    config, state = convert_fairseq(inner, {})
    layer = int(encoder.get("use_layer", config.layers))
    if not 0 < layer <= config.layers:
        raise CheckpointError(f"its head reads layer {layer}, but the encoder has {config.layers}")
    config = config.truncated(layer)
    return SpinCheckpoint(
        config=config,
        encoder_state={
            name: value
            for name, value in state.items()
            if not name.startswith("layers.") or int(name.split(".")[1]) < layer
        },
        projection_weight=weights["pred_head.layers.0.weight"].float(),
        projection_bias=weights["pred_head.layers.0.bias"].float(),
        codewords=weights[_CODEBOOK].float(),
        layer=layer,
    )


def _weights(values: Mapping[str, Any]) -> Mapping[str, Tensor]:
    found = values.get("state_dict", values)
    return found if isinstance(found, Mapping) else {}
