"""s3prl upstreams by name: as spintok's own encoder where the architecture is one, else through s3prl itself."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from spintok.frames import HOP, SAMPLE_RATE, num_frames
from spintok.models.encoder import EncoderConfig
from spintok.models.importers.fairseq import convert_fairseq
from spintok.models.importers.torchaudio import import_torchaudio
from spintok.models.importers.weights import CheckpointError

__all__ = ["Upstream", "load_upstream", "native_upstream"]


class Upstream(nn.Module):
    """Features of any s3prl upstream with 50 frames a second, under the contract of ``spintok.models.encoder.Encoder``.

    Each utterance runs alone, since upstreams mix padding into their features; so batches gain no speed. Layer ``n`` is
    s3prl's ``hidden_states[n]``, which in Large models has the last layer norm after the last layer.

    Attributes:
        name: s3prl's name of it.
        layers: the last layer's number.
        num_features: D, the width of the last layer's features.
    """

    context_frames = 250
    """Frames to read on either side of a window of a long recording (``spintok.chunking``)."""

    def __init__(self, name: str, upstream: nn.Module) -> None:
        super().__init__()
        rate = _downsampling(upstream)
        if rate != HOP:
            raise CheckpointError(f"s3prl's {name} steps by {rate} samples a frame; spintok's frames step by {HOP}")
        self.name = name
        self.upstream = upstream.eval()
        with torch.no_grad():
            trial = self._run(torch.randn(SAMPLE_RATE, generator=torch.Generator().manual_seed(0)))
        self.layers = len(trial) - 1
        self.num_features = trial[-1].shape[-1]

    def forward(
        self,
        waveforms: Tensor,
        lengths: Tensor | None = None,
        *,
        layer: int | None = None,
        statistics: None = None,
    ) -> tuple[Tensor, Tensor]:
        """Features (B, T, D), zero where padded, and frame counts (B,) of waveforms (B, S) of ``lengths`` (B,).

        Raises:
            ValueError: no such layer, or the upstream gives fewer frames than HuBERT's convolutions.
        """
        layer = self.layers if layer is None else layer
        if not 0 <= layer <= self.layers:
            raise ValueError(f"s3prl's {self.name} has layers 0 ... {self.layers}, asked for {layer}")
        batch, samples = waveforms.shape
        sizes = [samples] * batch if lengths is None else lengths.tolist()
        counts = [num_frames(size) for size in sizes]
        features = waveforms.new_zeros(batch, num_frames(samples), self.num_features)
        for row, (size, count) in enumerate(zip(sizes, counts, strict=True)):
            if count:
                found = self._run(waveforms[row, :size])[layer]
                if len(found) < count:
                    raise ValueError(f"s3prl's {self.name} gave {len(found)} frames of {size} samples, not {count}")
                features[row, :count] = found[:count]
        return features, torch.tensor(counts, device=waveforms.device)

    def statistics(self, blocks: Iterable[Tensor]) -> None:
        """None: an upstream takes no statistics of a whole recording, so its windows stand for themselves."""

    def _run(self, waveform: Tensor) -> list[Tensor]:
        return [states[0] for states in self.upstream([waveform])["hidden_states"]]


def load_upstream(name: str, **options: Any) -> Upstream:
    """An s3prl upstream, which downloads what it needs; ``options`` go to it, such as ``ckpt`` for hubert_local.

    Raises:
        CheckpointError: no such upstream, it cannot be built, or it has another frame rate.
        ImportError: s3prl is not installed.
    """
    return Upstream(name, _build(name, options))


def native_upstream(name: str, **options: Any) -> tuple[EncoderConfig, dict[str, Tensor]]:
    """The encoder of an s3prl upstream of the HuBERT, wav2vec 2.0 or WavLM family, as spintok's own.

    Raises:
        CheckpointError: no such upstream, it cannot be built, or it is of another family.
        ImportError: s3prl is not installed.
    """
    upstream = _build(name, options)
    model = getattr(upstream, "model", None)
    if type(model).__module__ not in (
        "s3prl.upstream.hubert.hubert_model",
        "s3prl.upstream.wav2vec2.wav2vec2_model",
        "s3prl.upstream.wavlm.WavLM",
    ):
        raise CheckpointError(
            f"s3prl's {name} is not of the HuBERT, wav2vec 2.0 or WavLM family: "
            f'for its features, use spintok.models.importers.load_upstream("{name}")'
        )
    settings = vars(getattr(upstream, "task_cfg", object)) | vars(getattr(upstream, "cfg", object))
    encoder: Any = model.encoder  # type: ignore[union-attr]
    settings = {
        "normalize": settings.get("normalize", False),
        "max_distance": settings.get("max_distance", 800),
        "layer_norm_first": encoder.layer_norm_first,
        "encoder_attention_heads": encoder.layers[0].self_attn.num_heads,
    }
    return convert_fairseq(model.state_dict(), settings)  # type: ignore[union-attr]


def _downsampling(upstream: Any) -> int:
    rate = upstream.get_downsample_rates("hidden_states")
    return int(rate if isinstance(rate, int) else rate[-1])


def _build(name: str, options: dict[str, Any]) -> nn.Module:
    with _old_torchaudio():
        try:
            from s3prl import hub
        except (ImportError, OSError, RuntimeError) as error:
            raise ImportError(f"s3prl is needed for its upstreams: pip install 'spintok[s3prl]' ({error})") from error
        if name not in hub.options():
            raise CheckpointError(f"s3prl has no upstream {name}; s3prl.hub.options() lists them")
        try:
            upstream: nn.Module = getattr(hub, name)(**options)
        except Exception as error:
            # Upstreams are third-party code: they download, and fail in their own ways.
            text = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CheckpointError(f"s3prl could not build {name}: {text}") from error
    return upstream


@contextmanager
def _old_torchaudio() -> Iterator[None]:
    """What s3prl imports from torchaudio and torchaudio >= 2.9 no longer has; upstreams do not call it."""
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
