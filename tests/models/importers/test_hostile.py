"""Checkpoints made to run code, to take all memory, or to never end: each is refused in one line, at once."""

import json
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from reference_checkpoints import hubert, third_party

from spintok.models.importers import CheckpointError, load_encoder, load_upstream


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def refused(load: Any, match: str) -> None:
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=match) as caught:
        load()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert time.monotonic() - start < 20


def test_the_bomb_goes_off_when_it_is_unpickled(tmp_path: Path) -> None:
    torch.save({"x": Bomb(tmp_path / "ran")}, tmp_path / "bomb.pt")
    torch.load(tmp_path / "bomb.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


def test_a_torchaudio_bundle_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchaudio")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    torch.save({"x": Bomb(tmp_path / "ran")}, folder / "hubert_fairseq_base_ls960.pth")
    refused(lambda: load_encoder("torchaudio:HUBERT_BASE"), "holds more than weights")
    assert not (tmp_path / "ran").exists()
    (folder / "hubert_fairseq_base_ls960.pth").write_bytes(b"nothing")
    refused(lambda: load_encoder("torchaudio:HUBERT_BASE"), "damaged|more than weights")


@pytest.mark.parametrize("name", ["distiller_local", "mockingjay_local", "tera_local", "hubert_local", "wavlm_local"])
def test_an_s3prl_checkpoint(name: str, tmp_path: Path) -> None:
    pytest.importorskip("s3prl")
    # s3prl takes long to import; that must not count.
    with third_party(), pytest.raises(CheckpointError, match="no upstream nonsense"):
        load_upstream("nonsense")
    torch.save({"Config": Bomb(tmp_path / "ran")}, tmp_path / "bomb.pt")
    with third_party():
        refused(lambda: load_upstream(name, ckpt=str(tmp_path / "bomb.pt")), "could not build|running its code")
        refused(lambda: load_encoder(f"s3prl:{name}:{tmp_path}/bomb.pt"), "could not build|running its code|family")
    assert not (tmp_path / "ran").exists()


def test_an_s3prl_checkpoint_whose_settings_are_code(tmp_path: Path) -> None:
    """s3prl passes conv_feature_layers to eval()."""
    pytest.importorskip("s3prl")
    model, settings = hubert()
    code = f"[(512, 10, 5)] + [(512, 3, 2)] * (__import__('os').mkdir({str(tmp_path / 'ran')!r}) or 4)"
    for text in (code, "[(512, 10, 5)] * 1000000000"):
        values = {"task_cfg": {}, "model_cfg": {**settings, "conv_feature_layers": text}}
        torch.save({**values, "model_weight": model.state_dict(), "dictionaries_symbols": [["a"]]}, tmp_path / "m.pt")
        with third_party():
            refused(lambda: load_upstream("hubert_local", ckpt=str(tmp_path / "m.pt")), "not a list of numbers")
        refused(lambda: load_encoder(tmp_path / "m.pt"), "conv_feature_layers cannot be read")
    assert not (tmp_path / "ran").exists()


def test_lists_that_repeat_each_other(tmp_path: Path) -> None:
    shared: Any = [1]
    for _ in range(60):
        shared = [shared, shared]
    deep: Any = [1]
    for _ in range(200):
        deep = [deep]
    circle: Any = []
    circle.append(circle)
    model, settings = hubert()
    for value, message in (
        (shared, "too many values|too deeply"),
        (deep, "too deeply|damaged"),
        (circle, "too deeply"),
    ):
        for place in ({"cfg": {"model": {**settings, "layer_type": value}}}, {"cfg": {"model": {"model": value}}}):
            torch.save({"model": model.state_dict(), **place}, tmp_path / "m.pt")
            refused(lambda: load_encoder(tmp_path / "m.pt"), message)
    torch.save({"a": shared}, tmp_path / "m.pt")
    refused(lambda: load_encoder(tmp_path / "m.pt"), "not a checkpoint")


def test_a_compressed_archive(tmp_path: Path) -> None:
    torch.save({"model": {"x": torch.zeros(1 << 20)}, "cfg": {}}, tmp_path / "m.pt")
    with zipfile.ZipFile(tmp_path / "m.pt") as old, zipfile.ZipFile(tmp_path / "small.pt", "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "small.pt").stat().st_size < 20_000
    refused(lambda: load_encoder(tmp_path / "small.pt"), "is compressed")


def test_one_number_repeated_a_billion_times(tmp_path: Path) -> None:
    model, settings = hubert()
    weights = model.state_dict()
    weights["encoder.layers.0.fc1.weight"] = torch.zeros(1).expand(1 << 20, 1 << 10)
    torch.save({"model": weights, "cfg": {"model": settings}}, tmp_path / "m.pt")
    refused(lambda: load_encoder(tmp_path / "m.pt"), "larger than the file")
    # The same numbers under many names.
    one = torch.zeros(1 << 16)
    torch.save({"model": {f"w{i}": one for i in range(200)}, "cfg": {}}, tmp_path / "m.pt")
    refused(lambda: load_encoder(tmp_path / "m.pt"), "larger than the file")


WEIGHTS = {
    "no tensor": ({"encoder.layers.0.fc1.weight": 3}, "is a int, not a tensor"),
    "no floats": ({"encoder.layers.0.fc1.weight": torch.zeros(96, 48, dtype=torch.int32)}, "not a floating-point"),
    "nan": ({"encoder.layers.0.fc1.bias": torch.full((96,), float("nan"))}, "NaN or infinite"),
    "infinite": ({"layer_norm.bias": torch.full((32,), float("inf"))}, "NaN or infinite"),
    "one dimension": ({"encoder.layers.0.fc1.weight": torch.zeros(96)}, "must have 2 dimensions"),
    "empty": ({"encoder.pos_conv.0.weight_v": torch.zeros(48, 0, 16)}, "positional"),
    "misfit": ({"encoder.layers.1.self_attn.k_proj.weight": torch.zeros(48, 3)}, "do not fit"),
    "gap": ({"encoder.layers.7.fc1.bias": torch.zeros(96)}, "without gaps"),
    "huge number": ({f"encoder.layers.{10**30}.fc1.bias": torch.zeros(96)}, "do not fit|without gaps"),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_misshapen_weights(kind: str, tmp_path: Path) -> None:
    change, message = WEIGHTS[kind]
    model, settings = hubert()
    torch.save({"model": {**model.state_dict(), **change}, "cfg": {"model": settings}}, tmp_path / "m.pt")
    refused(lambda: load_encoder(tmp_path / "m.pt"), message)


SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"encoder_attention_heads": "many"}, "heads must be an integer"),
    ({"encoder_attention_heads": 10**400}, "heads must be an integer"),
    ({"conv_feature_layers": [1, 2]}, "cannot be read"),
    ({"conv_feature_layers": "[" * 5000}, "cannot be read"),
    ({"conv_feature_layers": "[[(1,1,1)] * 999] * 999"}, "cannot be read"),
    ({"layer_type": ["x"] * 10_000}, "layer_type is"),
]


@pytest.mark.parametrize(("change", "message"), SETTINGS)
def test_settings_of_the_wrong_type(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    model, settings = hubert()
    torch.save({"model": model.state_dict(), "cfg": {"model": {**settings, **change}}}, tmp_path / "m.pt")
    refused(lambda: load_encoder(tmp_path / "m.pt"), message)


def test_hugging_face_settings_of_the_wrong_type(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from reference_features import transformers_model

    transformers_model("wavlm").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for change, message in (
        ({"model_type": ["hubert"]}, "model_type is"),
        ({"hidden_act": {"a": 1}}, "activation functions"),
        ({"conv_stride": 5}, "conv_strides must list"),
        ({"conv_stride": [5, 2, 2, 2, 2, 2, "2"]}, "conv_strides must be an integer"),
        ({"num_attention_heads": 0}, "heads must be"),
        ({"num_attention_heads": "4"}, "heads must be"),
        ({"layer_norm_eps": "small"}, "norm_eps must be"),
        ({"max_bucket_distance": -1}, "position_max_distance must be"),
        ({"max_bucket_distance": 10**300}, "position_max_distance must be"),
    ):
        path.write_text(json.dumps({**config, **change}))
        refused(lambda: load_encoder(tmp_path), message)
    path.write_text("[" * 100_000)
    refused(lambda: load_encoder(tmp_path), r"config\.json cannot be read")
    path.write_text(json.dumps(config))
    for text in ('{"do_normalize": 7}', "[]", '{"feature_extractor": 3}'):
        (tmp_path / "processor_config.json").write_text(text)
        (tmp_path / "preprocessor_config.json").write_text(text)
        refused(lambda: load_encoder(tmp_path), "normalize_waveform must be|does not hold|is not an object")
    for name in ("processor_config.json", "preprocessor_config.json"):
        (tmp_path / name).unlink()
    (tmp_path / "model.safetensors").rename(tmp_path / "moved")
    for text in ("{}", '{"weight_map": 3}', '{"weight_map": {"a": 4}}'):
        (tmp_path / "model.safetensors.index.json").write_text(text)
        refused(lambda: load_encoder(tmp_path), "no weight_map")
