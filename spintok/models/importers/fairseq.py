"""Checkpoints of fairseq, of Microsoft's WavLM, and of s3prl, which converts either.

They hold HuBERT, wav2vec 2.0 or WavLM, pre-trained or fine-tuned for CTC, with weights and settings under fairseq's
names. fairseq is not needed: ``spintok.models.importers.read`` reads its argparse and omegaconf settings.
"""

import ast
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from spintok.models.config import EncoderConfig
from spintok.models.importers.read import plain
from spintok.models.importers.weights import CheckpointError, assemble, geometry, rename, usual_heads

__all__ = ["convert_fairseq", "from_fairseq", "from_s3prl", "is_fairseq", "is_s3prl", "number_list"]

# Of a list of convolutions.
_MOST_ENTRIES = 1000

_PREFIX = r"(?:w2v_encoder\.w2v_model\.|w2v_model\.)?"
_LAYER = _PREFIX + r"encoder\.layers\.(\d+)\."
RULES = [
    (_PREFIX + r"feature_extractor\.conv_layers\.(\d+)\.0\.(\w+)", r"front_end.layers.\1.\2"),
    (_PREFIX + r"feature_extractor\.conv_layers\.(\d+)\.2\.(?:1\.)?(\w+)", r"front_end.layers.\1.norm.\2"),
    (_PREFIX + r"layer_norm\.(\w+)", r"feature_norm.\1"),
    (_PREFIX + r"post_extract_proj\.(\w+)", r"projection.\1"),
    (_PREFIX + r"encoder\.pos_conv\.0\.(bias|weight|weight_g|weight_v)", r"positional.\1"),
    (_PREFIX + r"encoder\.layer_norm\.(\w+)", r"norm.\1"),
    (_LAYER + r"self_attn\.(q|k|v|out)_proj\.(\w+)", r"layers.\1.attention.\2.\3"),
    (_LAYER + r"self_attn\.grep_a", r"layers.\1.attention.gate_scale"),
    (_LAYER + r"self_attn\.grep_linear\.(\w+)", r"layers.\1.attention.gate.\2"),
    (_PREFIX + r"encoder\.layers\.0\.self_attn\.relative_attention_bias\.weight", r"positions.weight"),
    (_LAYER + r"self_attn_layer_norm\.(\w+)", r"layers.\1.attention_norm.\2"),
    (_LAYER + r"fc1\.(\w+)", r"layers.\1.expand.\2"),
    (_LAYER + r"fc2\.(\w+)", r"layers.\1.contract.\2"),
    (_LAYER + r"final_layer_norm\.(\w+)", r"layers.\1.feed_forward_norm.\2"),
]


def is_fairseq(values: Mapping[str, Any]) -> bool:
    """Whether this is a checkpoint of fairseq or of WavLM's authors."""
    return isinstance(values.get("model"), Mapping) and ("cfg" in values or "args" in values)


def is_s3prl(values: Mapping[str, Any]) -> bool:
    """Whether this is a checkpoint that s3prl converted from fairseq."""
    return isinstance(values.get("model_weight"), Mapping) and "model_cfg" in values


def from_fairseq(values: Mapping[str, Any], *, final_norm: bool = False) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """The encoder of a fairseq or WavLM checkpoint.

    Raises:
        CheckpointError: its architecture is not one of spintok's, or it is incomplete.
    """
    settings: dict[str, Any] = {}
    for key in ("args", "cfg"):
        found = plain(values.get(key))
        if isinstance(found, dict):
            settings.update(_flat(found))
    return convert_fairseq(values["model"], settings, final_norm=final_norm)


def from_s3prl(values: Mapping[str, Any], *, final_norm: bool = False) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """The encoder of a checkpoint that s3prl converted.

    Raises:
        CheckpointError: its architecture is not one of spintok's, or it is incomplete.
    """
    found = plain({"model": values["model_cfg"], "task": values.get("task_cfg", {})})
    return convert_fairseq(values["model_weight"], _flat(found), final_norm=final_norm)


def convert_fairseq(
    weights: Mapping[str, Any], settings: Mapping[str, Any], *, final_norm: bool = False
) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """The encoder of weights with fairseq's names. Settings that are missing are taken from the published models.

    Raises:
        CheckpointError: another architecture, or an incomplete encoder.
    """
    kind = settings.get("layer_type", "transformer")
    if kind != "transformer":
        raise CheckpointError(f"its layer_type is {str(kind)[:80]}; spintok's encoders are transformers")
    activation = settings.get("activation_fn", "gelu")
    if activation != "gelu":
        raise CheckpointError(f"its activation_fn is {str(activation)[:80]}; spintok's encoders use gelu")
    if not isinstance(weights, Mapping):
        raise CheckpointError("its weights are not a dictionary")
    named = rename({name: tensor for name, tensor in weights.items() if isinstance(name, str)}, RULES)
    shapes = geometry(named)
    if shapes["position_buckets"] and not settings.get("gru_rel_pos", True):
        raise CheckpointError("its relative positions have no gate; spintok has WavLM's gated ones only")
    large = shapes["conv_norm"] == "layer"
    heads = settings.get("encoder_attention_heads") or shapes.get("heads") or usual_heads(shapes["width"])
    convolutions = settings.get("conv_feature_layers")
    config = EncoderConfig(
        **{
            **shapes,
            "conv_strides": _strides(convolutions) if convolutions else EncoderConfig.conv_strides,
            "heads": heads,
            "norm_position": "pre" if settings.get("layer_norm_first", large) else "post",
            "final_norm": final_norm,
            "position_max_distance": settings.get("max_distance", 800),
            "normalize_waveform": bool(settings.get("normalize", large)),
            "waveform_eps": 1e-5,
        }
    )
    return config, assemble(named, config)


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the encoder by name, from all places where the versions of fairseq keep them.

    A fine-tuned model keeps the settings of its encoder in ``w2v_args``; they take precedence.
    """
    flat = {name: value for name, value in settings.items() if not isinstance(value, dict)}
    for part in ("task", "model"):
        if isinstance(settings.get(part), dict):
            flat.update(_flat(settings[part]))
    if isinstance(settings.get("w2v_args"), dict):
        own = _flat(settings["w2v_args"])
        flat.update({name: value for name, value in own.items() if value is not None})
    return flat


def _strides(text: Any) -> tuple[int, ...]:
    """The strides in fairseq's list of (channels, kernel, stride), such as "[(512,10,5)] + [(512,3,2)] * 6"."""
    try:
        return tuple(int(stride) for _, _, stride in number_list(text))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"its conv_feature_layers cannot be read: {str(text)[:200]}") from error


def number_list(text: Any) -> list[Any]:
    """The value of an expression of integers, lists, tuples, sums and products, with at most 1,000 entries.

    Raises:
        ValueError: the text is something else.
    """

    def value(node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.List(elts=parts):
                return [value(part) for part in parts]
            case ast.Tuple(elts=parts):
                return tuple(value(part) for part in parts)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return value(left) + value(right)
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                entries, times = value(left), value(right)
                if isinstance(entries, list | tuple) and len(entries) * times <= _MOST_ENTRIES:
                    return entries * times
        raise ValueError("not a list of numbers")

    if not isinstance(text, str) or len(text) > 10_000:
        raise ValueError("not a text, or too long")
    try:
        found = value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(str(error)) from None
    if not isinstance(found, list) or len(found) > _MOST_ENTRIES:
        raise ValueError("not a list, or too long")
    return found
