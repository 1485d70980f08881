"""Hugging Face folders of HubertModel, Wav2Vec2Model, WavLMModel or Data2VecAudioModel, alone or in a model for CTC.

The transformers package is not needed.
"""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from spintok.models.config import EncoderConfig
from spintok.models.importers.read import one_line, read_tensors
from spintok.models.importers.weights import CheckpointError, assemble, geometry, rename

__all__ = ["feature_extractor", "load_huggingface", "read_json", "read_weights"]

_PREFIX = r"(?:hubert\.|wav2vec2\.|wavlm\.|data2vec_audio\.)?"
_POSITIONAL = _PREFIX + r"encoder\.pos_conv_embed\.conv\."
_LAYER = _PREFIX + r"encoder\.layers\.(\d+)\."
RULES = [
    (_PREFIX + r"feature_extractor\.conv_layers\.(\d+)\.conv\.(\w+)", r"front_end.layers.\1.\2"),
    (_PREFIX + r"feature_extractor\.conv_layers\.(\d+)\.layer_norm\.(\w+)", r"front_end.layers.\1.norm.\2"),
    (_PREFIX + r"feature_projection\.layer_norm\.(\w+)", r"feature_norm.\1"),
    (_PREFIX + r"feature_projection\.projection\.(\w+)", r"projection.\1"),
    (_POSITIONAL + r"(bias|weight|weight_g|weight_v)", r"positional.\1"),
    (_POSITIONAL + r"parametrizations\.weight\.original0", r"positional.weight_g"),
    (_POSITIONAL + r"parametrizations\.weight\.original1", r"positional.weight_v"),
    (_PREFIX + r"encoder\.pos_conv_embed\.layers\.(\d+)\.conv\.(bias|weight)", r"positional.convs.\1.\2"),
    (_PREFIX + r"encoder\.layer_norm\.(\w+)", r"norm.\1"),
    (_LAYER + r"attention\.(q|k|v|out)_proj\.(\w+)", r"layers.\1.attention.\2.\3"),
    (_LAYER + r"attention\.gru_rel_pos_const", r"layers.\1.attention.gate_scale"),
    (_LAYER + r"attention\.gru_rel_pos_linear\.(\w+)", r"layers.\1.attention.gate.\2"),
    (_PREFIX + r"encoder\.layers\.0\.attention\.rel_attn_embed\.weight", r"positions.weight"),
    (_LAYER + r"layer_norm\.(\w+)", r"layers.\1.attention_norm.\2"),
    (_LAYER + r"feed_forward\.intermediate_dense\.(\w+)", r"layers.\1.expand.\2"),
    (_LAYER + r"feed_forward\.output_dense\.(\w+)", r"layers.\1.contract.\2"),
    (_LAYER + r"final_layer_norm\.(\w+)", r"layers.\1.feed_forward_norm.\2"),
]


def load_huggingface(folder: Path, *, final_norm: bool = False) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """The encoder of a ``save_pretrained`` folder.

    Waveforms are normalised if ``do_normalize`` of the folder's feature extractor says so, which is stored in
    ``processor_config.json`` (transformers 5) or else in ``preprocessor_config.json``. Without either, Large models
    (layer norms in the front end) normalise and Base models do not.

    Raises:
        CheckpointError: it is another model, or files are missing, damaged or unsafe to read.
    """
    settings = read_json(folder / "config.json")
    kind = settings.get("model_type")
    if kind == "wav2vec2-bert":
        raise CheckpointError(
            "w2v-BERT runs through transformers: load_extractor, K-means recipes and `spintok import` take it, and no "
            "recipe trains it"
        )
    if kind not in ("hubert", "wav2vec2", "wavlm", "data2vec-audio"):
        raise CheckpointError(
            f"model_type is {str(kind)[:80]!r}; spintok reads hubert, wav2vec2, wavlm, data2vec-audio and wav2vec2-bert"
        )
    activations = [settings.get(name, "gelu") for name in ("hidden_act", "feat_extract_activation")]
    if activations != ["gelu", "gelu"]:
        raise CheckpointError(f"its activation functions are {str(activations)[:80]}; spintok's encoders use gelu")
    named = rename(read_weights(folder), RULES)
    shapes = geometry(named)
    extractor = feature_extractor(folder)
    # transformers normalises unless the file says otherwise.
    normalize = shapes["conv_norm"] == "layer" if extractor is None else extractor.get("do_normalize", True)
    config = EncoderConfig(
        **{
            **shapes,
            "conv_strides": settings.get("conv_stride", EncoderConfig.conv_strides),
            "heads": settings.get("num_attention_heads", 12),
            "norm_position": "pre" if settings.get("do_stable_layer_norm", False) else "post",
            "final_norm": final_norm,
            "position_max_distance": settings.get("max_bucket_distance", 800),
            "norm_eps": settings.get("layer_norm_eps", 1e-5),
            "normalize_waveform": normalize,
            "waveform_eps": 1e-7,
        }
    )
    return config, assemble(named, config)


def feature_extractor(folder: Path) -> dict[str, Any] | None:
    """The settings of the feature extractor, or None without one."""
    if (folder / "processor_config.json").exists():
        processor = read_json(folder / "processor_config.json")
        # Older processors only name their classes here.
        for name in ("feature_extractor", "audio_processor"):
            if name in processor:
                if not isinstance(processor[name], dict):
                    raise CheckpointError(f"processor_config.json: {name} is not an object")
                return dict(processor[name])
    path = folder / "preprocessor_config.json"
    return read_json(path) if path.exists() else None


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder by name, safetensors before pickles, which are read without running them.

    Raises:
        CheckpointError: there are none, or a file is damaged or unsafe to read.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).exists():
            return read_tensors(folder / name)
        index = folder / f"{name}.index.json"
        if index.exists():
            shards = _shards(index)
            outside = [shard for shard in shards if Path(shard).name != shard]
            if outside:
                raise CheckpointError(f"{index.name} names a file outside the folder: {outside[0]}")
            merged: dict[str, Tensor] = {}
            for shard in shards:
                merged.update(read_tensors(folder / shard))
            return merged
    raise CheckpointError(
        "it has a config.json but no weights: model.safetensors, pytorch_model.bin or either's .index.json"
    )


def _shards(index: Path) -> list[str]:
    """The names of the files that an index lists."""
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise CheckpointError(f"{index.name} has no weight_map of file names")
    return sorted(set(listed.values()))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ``CheckpointError``."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path.name} does not hold a JSON object")
    return values
