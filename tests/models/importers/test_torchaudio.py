"""torchaudio's models and bundles."""

from pathlib import Path
from typing import Any

import pytest
import torch
from reference_features import difference, shake

from spintok.models.encoder import Encoder
from spintok.models.importers import CheckpointError, load_encoder

models = pytest.importorskip("torchaudio.models")

SMALL = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": [(32, 10, 5)] + [(32, 3, 2)] * 4 + [(32, 2, 2)] * 2,
    "extractor_conv_bias": False,
    "encoder_embed_dim": 48,
    "encoder_projection_dropout": 0.1,
    "encoder_pos_conv_kernel": 16,
    "encoder_pos_conv_groups": 4,
    "encoder_num_layers": 3,
    "encoder_num_heads": 4,
    "encoder_attention_dropout": 0.1,
    "encoder_ff_interm_features": 96,
    "encoder_ff_interm_dropout": 0.0,
    "encoder_dropout": 0.1,
    "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.1,
}
LARGE = {"extractor_mode": "layer_norm", "extractor_conv_bias": True, "encoder_layer_norm_first": True}


def small(kind: str, **changes: Any) -> Any:
    settings = {**SMALL, **changes}
    torch.manual_seed(0)
    if kind == "wavlm":
        model = models.wavlm_model(**settings, encoder_num_buckets=320, encoder_max_distance=800, aux_num_out=None)
    else:
        model = models.wav2vec2_model(**settings, aux_num_out=29 if kind == "asr" else None)
    shake(model, 0)
    return model.eval()


def assert_equal(encoder: Encoder, model: Any, normalize: bool, samples: int = 16_000) -> None:
    waveform = torch.randn(samples, generator=torch.Generator().manual_seed(0)) * 0.1
    source = torch.nn.functional.layer_norm(waveform, waveform.shape) if normalize else waveform
    with torch.inference_mode():
        actual, _ = encoder.hidden_states(waveform[None])
        expected, _ = model.extract_features(source[None])
    assert len(actual) == len(expected) + 1
    for features, truth in zip(actual[1:], expected, strict=True):
        assert difference(features, truth) < 1e-5


@pytest.mark.parametrize("kind", ["wav2vec2", "asr", "wavlm"])
@pytest.mark.parametrize("changes", [{}, LARGE])
def test_every_layer_equals_torchaudio(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = small(kind, **changes)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    # WavLM's bias has a row a head; the others do not tell.
    encoder = load_encoder(tmp_path / "model.pt", heads=None if kind == "wavlm" else 4)
    assert_equal(encoder, model, normalize=bool(changes))


def test_pretraining_model(tmp_path: Path) -> None:
    inner = small("wav2vec2")
    weights = {f"wav2vec2.{name}": value for name, value in inner.state_dict().items()}
    torch.save({**weights, "mask_generator.mask_embedding": torch.zeros(48)}, tmp_path / "model.pt")
    assert_equal(load_encoder(tmp_path / "model.pt", heads=4), inner, normalize=False)


def test_heads_are_asked_for(tmp_path: Path) -> None:
    torch.save(small("wav2vec2").state_dict(), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="pass heads= to load_encoder"):
        load_encoder(tmp_path / "model.pt")


@pytest.mark.parametrize(("name", "layers"), [("HUBERT_BASE", 12), ("WAVLM_BASE_PLUS", 2)])
def test_bundle(name: str, layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle with random weights in place of the download, at full width and, of HuBERT, with all layers."""
    pipelines = pytest.importorskip("torchaudio.pipelines")
    bundle = getattr(pipelines, name)
    monkeypatch.setitem(bundle._params, "encoder_num_layers", layers)
    torch.manual_seed(0)
    model = (models.wavlm_model if "WAVLM" in name else models.wav2vec2_model)(**bundle._params)
    state = model.eval().state_dict()
    monkeypatch.setattr("torchaudio.pipelines._wav2vec2.utils.load_state_dict_from_url", lambda *_, **__: state)
    encoder = load_encoder(f"torchaudio:{name}")
    assert encoder.config.layers == layers
    assert encoder.config.heads == 12
    assert_equal(encoder, bundle.get_model().eval(), normalize=False, samples=8_000)


def test_bundle_that_normalizes(monkeypatch: pytest.MonkeyPatch) -> None:
    pipelines = pytest.importorskip("torchaudio.pipelines")
    bundle = pipelines.HUBERT_LARGE
    # The bundle's own architecture with fewer layers: 24 would only take time.
    monkeypatch.setitem(bundle._params, "encoder_num_layers", 2)
    torch.manual_seed(0)
    plain = models.wav2vec2_model(**bundle._params)
    monkeypatch.setattr(
        "torchaudio.pipelines._wav2vec2.utils.load_state_dict_from_url", lambda *_, **__: plain.state_dict()
    )
    encoder = load_encoder("torchaudio:HUBERT_LARGE")
    assert encoder.config.normalize_waveform
    assert encoder.config.norm_position == "pre"
    # The bundle's model normalises by itself.
    assert_equal(encoder, bundle.get_model().eval(), normalize=False, samples=8_000)


def test_bundle_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"no bundle HUBERT_TINY; it has .*HUBERT_BASE"):
        load_encoder("torchaudio:HUBERT_TINY")

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchaudio.pipelines._wav2vec2.utils.load_state_dict_from_url", offline)
    with pytest.raises(CheckpointError, match="could not download HUBERT_BASE: no network"):
        load_encoder("torchaudio:HUBERT_BASE")
