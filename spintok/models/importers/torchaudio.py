"""wav2vec 2.0, HuBERT and WavLM of torchaudio: saved state dicts and the bundles of ``torchaudio.pipelines``."""

import pickle
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from spintok.models.config import EncoderConfig
from spintok.models.importers.read import one_line
from spintok.models.importers.weights import CheckpointError, assemble, geometry, rename, usual_heads

__all__ = ["from_torchaudio", "import_torchaudio", "is_torchaudio", "load_bundle"]

# Pre-training models hold their encoder as `wav2vec2`, bundles that normalise waveforms as `model`.
_PREFIX = r"(?:wav2vec2\.|model\.)?"
_LAYER = _PREFIX + r"encoder\.transformer\.layers\.(\d+)\."
_POSITIONAL = _PREFIX + r"encoder\.transformer\.pos_conv_embed\.conv\."
RULES = [
    (_PREFIX + r"feature_extractor\.conv_layers\.(\d+)\.conv\.(\w+)", r"front_end.layers.\1.\2"),
    (_PREFIX + r"feature_extractor\.conv_layers\.(\d+)\.layer_norm\.(\w+)", r"front_end.layers.\1.norm.\2"),
    (_PREFIX + r"encoder\.feature_projection\.layer_norm\.(\w+)", r"feature_norm.\1"),
    (_PREFIX + r"encoder\.feature_projection\.projection\.(\w+)", r"projection.\1"),
    (_POSITIONAL + r"(bias|weight|weight_g|weight_v)", r"positional.\1"),
    (_POSITIONAL + r"parametrizations\.weight\.original0", r"positional.weight_g"),
    (_POSITIONAL + r"parametrizations\.weight\.original1", r"positional.weight_v"),
    (_PREFIX + r"encoder\.transformer\.layer_norm\.(\w+)", r"norm.\1"),
    (_LAYER + r"attention\.(q|k|v|out)_proj\.(\w+)", r"layers.\1.attention.\2.\3"),
    (_LAYER + r"attention\.attention\.in_proj_(weight|bias)", r"layers.\1.attention.qkv.\2"),
    (_LAYER + r"attention\.attention\.out_proj\.(\w+)", r"layers.\1.attention.out.\2"),
    (_LAYER + r"attention\.gru_rel_pos_const", r"layers.\1.attention.gate_scale"),
    (_LAYER + r"attention\.gru_rel_pos_linear\.(\w+)", r"layers.\1.attention.gate.\2"),
    (_PREFIX + r"encoder\.transformer\.layers\.0\.attention\.rel_attn_embed\.weight", r"positions.weight"),
    (_LAYER + r"layer_norm\.(\w+)", r"layers.\1.attention_norm.\2"),
    (_LAYER + r"feed_forward\.intermediate_dense\.(\w+)", r"layers.\1.expand.\2"),
    (_LAYER + r"feed_forward\.output_dense\.(\w+)", r"layers.\1.contract.\2"),
    (_LAYER + r"final_layer_norm\.(\w+)", r"layers.\1.feed_forward_norm.\2"),
]


def is_torchaudio(values: Mapping[str, Any]) -> bool:
    """Whether these weights have torchaudio's names."""
    return any(".transformer.pos_conv_embed." in name for name in values)


def from_torchaudio(
    weights: Mapping[str, Tensor],
    *,
    heads: int | None = None,
    normalize_waveform: bool | None = None,
    final_norm: bool = False,
) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """The encoder of a state dict of ``torchaudio.models``.

    A state dict does not say whether layer norms come first and whether waveforms are normalised. As in all bundles of
    torchaudio, both are assumed if the front end has layer norms. The number of ``heads`` follows from the width.

    Raises:
        CheckpointError: the encoder is incomplete, or ``heads`` must be given.
    """
    named = rename(weights, RULES)
    shapes = geometry(named)
    large = shapes["conv_norm"] == "layer"
    config = EncoderConfig(
        **{
            **shapes,
            "heads": heads or shapes.get("heads") or usual_heads(shapes["width"]),
            "norm_position": "pre" if large else "post",
            "final_norm": final_norm,
            "normalize_waveform": large if normalize_waveform is None else normalize_waveform,
            "waveform_eps": 1e-5,
        }
    )
    return config, assemble(named, config)


def load_bundle(name: str, *, final_norm: bool = False) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """The encoder of a bundle such as HUBERT_BASE, which torchaudio downloads into torch's cache.

    The file is read as weights only, so it cannot run code.

    Raises:
        CheckpointError: there is no such bundle, it cannot be downloaded, or its file holds more than weights.
        ImportError: torchaudio is not installed.
    """
    pipelines = import_torchaudio().pipelines
    bundle = getattr(pipelines, name, None)
    if not isinstance(bundle, pipelines.Wav2Vec2Bundle):
        known = sorted(n for n in dir(pipelines) if isinstance(getattr(pipelines, n), pipelines.Wav2Vec2Bundle))
        raise CheckpointError(f"torchaudio has no bundle {name}; it has {', '.join(known)}")
    try:
        model = bundle.get_model(dl_kwargs={"weights_only": True})
    except OSError as error:
        raise CheckpointError(f"torchaudio could not download {name}: {error}") from error
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"the file of {name} in torch's cache ({torch.hub.get_dir()}) holds more than weights; delete it"
        ) from None
    except Exception as error:
        raise CheckpointError(f"the file of {name} in torch's cache is damaged: {one_line(error)}") from error
    normalize = bool(getattr(bundle, "_normalize_waveform", False))
    return from_torchaudio(model.state_dict(), normalize_waveform=normalize, final_norm=final_norm)


def import_torchaudio() -> ModuleType:
    """The torchaudio module, even if its compiled parts, which are not needed here, do not fit the installed torch.

    Raises:
        ImportError: torchaudio is not installed; the message has the command that installs it.
    """
    try:
        import torchaudio
    except ImportError as error:
        raise ImportError("torchaudio is needed for its bundles: pip install 'spintok[torchaudio]'") from error
    except (OSError, RuntimeError):
        # Its wheels are built for CUDA: with a CPU build of torch, loading its libraries fails.
        for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        extension = ModuleType("torchaudio._extension")
        extension.__dict__.update(_IS_TORCHAUDIO_EXT_AVAILABLE=False, _IS_ALIGN_AVAILABLE=False)
        extension.__dict__["fail_if_no_align"] = lambda function: function
        sys.modules["torchaudio._extension"] = extension
        import torchaudio
    module: ModuleType = torchaudio
    return module
