"""fairseq's, WavLM's and s3prl's checkpoints against s3prl's copies of their models."""

import argparse
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from reference_checkpoints import LARGE, fairseq_features, hubert, wav2vec2, wavlm
from reference_features import difference

from spintok.models.encoder import Encoder
from spintok.models.importers import CheckpointError, load_encoder
from spintok.models.importers.fairseq import _strides


def assert_equal(encoder: Encoder, model: Any, normalize: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    for samples in (400, 9_001, 24_000):
        waveform = torch.randn(samples, generator=generator) * 0.1
        with torch.inference_mode():
            actual, _ = encoder.hidden_states(waveform[None])
        expected = fairseq_features(model, waveform, normalize)
        assert len(actual) == len(expected) == encoder.config.layers + 1
        for features, truth in zip(actual, expected, strict=True):
            assert difference(features[0], truth) < 1e-5


@pytest.mark.parametrize("build", [hubert, wav2vec2, wavlm])
@pytest.mark.parametrize("changes", [{}, LARGE])
@pytest.mark.parametrize("form", ["cfg", "args", "s3prl", "legacy"])
def test_every_layer_equals_the_original(build: Any, changes: dict[str, Any], form: str, tmp_path: Path) -> None:
    model, settings = build(**changes)
    normalize = bool(changes)
    path = tmp_path / "model.pt"
    weights = model.state_dict()
    match form:
        case "cfg":
            # WavLM's checkpoints have their settings side by side.
            flat = {**settings, "normalize": normalize}
            nested = {"model": {"_name": "x", **settings}, "task": {"normalize": normalize}, "common": {"seed": 1}}
            torch.save({"model": weights, "cfg": flat if build is wavlm else nested, "args": None}, path)
        case "args":
            torch.save({"model": weights, "args": argparse.Namespace(**settings, normalize=normalize)}, path)
        case "s3prl":
            values = {"task_cfg": {"normalize": normalize}, "model_cfg": settings, "dictionaries_symbols": [["a"]]}
            torch.save({"model_weight": weights, **values}, path)
        case "legacy":
            cfg = {"model": argparse.Namespace(**settings), "task": argparse.Namespace(normalize=normalize)}
            torch.save({"model": weights, "cfg": cfg}, path, _use_new_zipfile_serialization=False)
    encoder = load_encoder(path)
    assert encoder.config.normalize_waveform == normalize
    assert_equal(encoder, model, normalize)
    assert load_encoder(path, layers=2).config.layers == 2


def test_fine_tuned(tmp_path: Path) -> None:
    """A model for CTC wraps the encoder and keeps its settings in w2v_args."""
    model, settings = hubert(**LARGE)
    weights = {f"w2v_encoder.w2v_model.{name}": value for name, value in model.state_dict().items()}
    weights["w2v_encoder.proj.weight"] = torch.zeros(30, 48)
    outer = {"w2v_args": {"model": settings, "task": {"normalize": True}}, "layer_norm_first": False, "normalize": True}
    torch.save({"model": weights, "cfg": {"model": outer, "task": {"normalize": True}}}, tmp_path / "ctc.pt")
    assert_equal(load_encoder(tmp_path / "ctc.pt"), model, normalize=True)


def test_omegaconf_settings(tmp_path: Path) -> None:
    """Settings in omegaconf's classes, as Hydra trainings keep them, with an enum inside."""
    omegaconf = pytest.importorskip("omegaconf")
    model, settings = hubert(**LARGE)
    cfg = omegaconf.OmegaConf.create({"model": settings, "task": {"normalize": True, "labels": ["km"]}})
    torch.save({"model": model.state_dict(), "cfg": cfg}, tmp_path / "model.pt")
    assert_equal(load_encoder(tmp_path / "model.pt"), model, normalize=True)


def test_classes_of_other_packages_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fairseq's dictionaries inside a checkpoint need no fairseq."""
    module = ModuleType("fairseq_data_dictionary")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec("class Dictionary:\n    def __init__(self): self.symbols = ['a', 'b']", module.__dict__)
    model, settings = hubert()
    task = {"dictionaries": [module.Dictionary()]}
    values = {"model": model.state_dict(), "cfg": {"model": settings, "task": {}}, "task_state": task}
    torch.save(values, tmp_path / "model.pt")
    monkeypatch.delitem(sys.modules, module.__name__)
    assert_equal(load_encoder(tmp_path / "model.pt"), model, normalize=False)
    assert module.__name__ not in sys.modules


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_type": "conformer"}, "layer_type is conformer"),
        ({"activation_fn": "relu"}, "activation_fn is relu"),
        ({"conv_feature_layers": "__import__('os')"}, "conv_feature_layers cannot be read"),
    ],
)
def test_other_architectures_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    model, settings = hubert()
    torch.save({"model": model.state_dict(), "cfg": {"model": settings | changes}}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_encoder(tmp_path / "model.pt")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "model.pt") in str(caught.value)


def test_unknown_parts_are_refused(tmp_path: Path) -> None:
    model, settings = hubert()
    weights = model.state_dict() | {"encoder.layers.0.conv_module.weight": torch.zeros(3)}
    torch.save({"model": weights, "cfg": {"model": settings}}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"do not have: encoder\.layers\.0\.conv_module"):
        load_encoder(tmp_path / "model.pt")
    partial = {name: value for name, value in model.state_dict().items() if "layers.1.fc1" not in name}
    torch.save({"model": partial, "cfg": {"model": settings}}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"first is layers\.1\.expand"):
        load_encoder(tmp_path / "model.pt")
    torch.save({"model": {"encoder.embed": torch.zeros(1)}, "cfg": {}}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="does not hold a complete encoder"):
        load_encoder(tmp_path / "model.pt")


def test_strides() -> None:
    assert _strides("[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2") == (5, 2, 2, 2, 2, 2, 2)
