"""s3prl upstreams: build them by name, and convert those of spintok's own architecture.

Upstreams are third-party code, which downloads and reads checkpoints in its own ways. Two ways would run code from a
checkpoint, and both are closed while an upstream is built: ``torch.load`` only reads weights, and the settings that
s3prl passes to ``eval`` must be lists of numbers if they come from a local checkpoint.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from spintok._files import require
from spintok.models.config import EncoderConfig
from spintok.models.importers.fairseq import convert_fairseq, number_list
from spintok.models.importers.read import plain, read_checkpoint
from spintok.models.importers.torchaudio import import_torchaudio
from spintok.models.importers.weights import CheckpointError

__all__ = ["build_upstream", "convert_upstream", "native_upstream"]

_NATIVE = ("s3prl.upstream.hubert.hubconf", "s3prl.upstream.wav2vec2.hubconf", "s3prl.upstream.wavlm.hubconf")
# Settings that s3prl's models pass to eval().
_EVALUATED = {
    "conv_feature_layers",
    "extractor_conv_feature_layers",
    "override_encoder_layers",
    "xformers_att_config",
    "xformers_block",
}


def build_upstream(name: str, ckpt: str | None = None) -> nn.Module:
    """The s3prl upstream of this name, built from the local checkpoint ``ckpt`` if its name needs one.

    Raises:
        CheckpointError: there is no such upstream, it cannot be built, or its checkpoint would run code.
        ImportError: s3prl is not installed.
    """
    if ckpt is not None and not Path(ckpt).exists():
        raise CheckpointError(f"s3prl could not build {name}: there is no checkpoint {ckpt}")
    if ckpt is not None and Path(ckpt).is_file():
        _check_settings(plain(read_checkpoint(Path(ckpt))), ckpt)
    with _old_torchaudio():
        make = _hub_entry(name)
        try:
            with _weights_only():
                upstream: nn.Module = make() if ckpt is None else make(ckpt=ckpt)
        except Exception as error:
            text = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CheckpointError(f"s3prl could not build {name}: {text}") from error
    return upstream


def native_upstream(
    name: str, ckpt: str | None = None, *, final_norm: bool = False
) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """An s3prl upstream of the HuBERT, wav2vec 2.0 or WavLM family as spintok's own encoder.

    Raises:
        CheckpointError: there is no such upstream, it cannot be built, or it has another architecture; in that case
            ``load_upstream`` gives its features.
        ImportError: s3prl is not installed.
    """
    with _old_torchaudio():
        family = _hub_entry(name).__module__
    if family not in _NATIVE:
        raise CheckpointError(
            f"s3prl's {name} is not of the HuBERT, wav2vec 2.0 or WavLM family: "
            f'for its features, use spintok.models.importers.load_upstream("{name}")'
        )
    return convert_upstream(build_upstream(name, ckpt), final_norm=final_norm)


def convert_upstream(upstream: nn.Module, *, final_norm: bool = False) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """The configuration and weights of an upstream of the HuBERT, wav2vec 2.0 or WavLM family.

    Raises:
        CheckpointError: it has another architecture.
    """
    model: Any = getattr(upstream, "model", None)
    if not isinstance(model, nn.Module) or type(upstream).__module__.replace(".expert", ".hubconf") not in _NATIVE:
        raise CheckpointError("it is not of the HuBERT, wav2vec 2.0 or WavLM family")
    settings = vars(getattr(upstream, "task_cfg", object)) | vars(getattr(upstream, "cfg", object))
    encoder: Any = model.encoder
    settings = {
        "normalize": settings.get("normalize", False),
        "max_distance": settings.get("max_distance", 800),
        "layer_norm_first": encoder.layer_norm_first,
        "encoder_attention_heads": encoder.layers[0].self_attn.num_heads,
    }
    return convert_fairseq(model.state_dict(), settings, final_norm=final_norm)


def _hub_entry(name: str) -> Any:
    """The function of s3prl's hub that builds the upstream ``name``."""
    hub = require("s3prl.hub", extra="s3prl", purpose="an upstream")
    if name not in hub.options():
        raise CheckpointError(f"s3prl has no upstream {name}; s3prl.hub.options() lists them")
    return getattr(hub, name)


@contextmanager
def _weights_only() -> Iterator[None]:
    """Let ``torch.load`` build tensors and plain containers only, whatever its caller asks for."""
    load = torch.load

    def load_weights(*arguments: Any, **options: Any) -> Any:
        return load(*arguments, **{**options, "weights_only": True})

    torch.load = load_weights
    try:
        yield
    finally:
        torch.load = load


def _check_settings(values: Any, path: str) -> None:
    """Refuse settings that s3prl would pass to ``eval``, unless they are lists of numbers."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            if key in _EVALUATED and isinstance(value, str) and not _is_literal(value):
                raise CheckpointError(f"{path}: its setting {key} is not a list of numbers: {value[:80]!r}")
            _check_settings(value, path)
    elif isinstance(values, Sequence) and not isinstance(values, str | bytes):
        for value in values:
            _check_settings(value, path)


def _is_literal(text: str) -> bool:
    try:
        number_list(text)
    except ValueError:
        return False
    return True


@contextmanager
def _old_torchaudio() -> Iterator[None]:
    """Add what s3prl imports from torchaudio and torchaudio >= 2.9 no longer has. Upstreams do not call it."""
    torchaudio = import_torchaudio()
    effects = ModuleType("torchaudio.sox_effects")

    def gone(*_: Any, **__: Any) -> None:
        raise RuntimeError("torchaudio no longer has sox effects")

    effects.__dict__.update(apply_effects_tensor=gone, apply_effects_file=gone)
    added = [name for name in ("set_audio_backend", "sox_effects") if not hasattr(torchaudio, name)]
    if "set_audio_backend" in added:
        torchaudio.__dict__["set_audio_backend"] = lambda *_: None
    if "sox_effects" in added:
        torchaudio.__dict__["sox_effects"] = sys.modules["torchaudio.sox_effects"] = effects
    try:
        yield
    finally:
        for name in added:
            del torchaudio.__dict__[name]
        if "sox_effects" in added:
            del sys.modules["torchaudio.sox_effects"]
