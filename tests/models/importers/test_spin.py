"""Checkpoints in the form in which Spin's authors released theirs."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from reference_checkpoints import SPIN, fairseq_features, hubert, spin_checkpoint, wavlm
from reference_features import difference

from spintok.models.encoder import Encoder
from spintok.models.importers import CheckpointError, load_encoder, load_spin

BASE = {"encoder_embed_dim": 768, "encoder_attention_heads": 12, "conv_pos_groups": 16}
"""HuBERT Base's width, from which alone a Spin checkpoint tells the number of heads; WavLM tells it."""


@pytest.mark.parametrize(("build", "shape"), [(hubert, BASE), (wavlm, {"max_distance": 800, "num_buckets": 320})])
def test_tokens_are_the_authors(build: Any, shape: dict[str, Any], tmp_path: Path) -> None:
    model, _ = build(**shape)
    values = spin_checkpoint(model)
    torch.save(values, tmp_path / "spin.ckpt")
    spin = load_spin(tmp_path / "spin.ckpt")
    assert spin.layer == spin.config.layers == 2
    waveform = torch.randn(16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.inference_mode():
        features = Encoder.from_state(spin.config, spin.encoder_state)(waveform[None])[0][0]
        truth = fairseq_features(model, waveform)[2]
        assert difference(features, truth) < 1e-5
        state = values["state_dict"]
        hidden = truth @ state["pred_head.layers.0.weight"].t() + state["pred_head.layers.0.bias"]
        expected = (torch.nn.functional.normalize(hidden, dim=-1) @ state["loss_module.codebook.weight"].t()).argmax(-1)
        embedding = torch.nn.functional.linear(features, spin.projection_weight, spin.projection_bias)
        assert torch.equal((embedding @ spin.codewords.t()).argmax(-1), expected)


def test_heads_cannot_be_known(tmp_path: Path) -> None:
    torch.save(spin_checkpoint(hubert()[0]), tmp_path / "spin.ckpt")
    with pytest.raises(CheckpointError, match="attention heads"):
        load_spin(tmp_path / "spin.ckpt")


def test_full_width_and_a_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HuBERT Base's width, and the logger object that Lightning pickled with the settings of the released files."""
    module = ModuleType("pytorch_lightning_loggers_wandb")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec("class WandbLogger:\n    def __init__(self): self.project = 'spin'", module.__dict__)
    model, _ = hubert(**BASE)
    values = spin_checkpoint(model, trainer={"logger": module.WandbLogger()})
    torch.save(values, tmp_path / "spin.ckpt")
    monkeypatch.delitem(sys.modules, module.__name__)
    spin = load_spin(tmp_path / "spin.ckpt")
    assert (spin.layer, spin.config.heads) == (2, 12)
    assert spin.projection_weight.shape == (16, 768)
    encoder = load_encoder(tmp_path / "spin.ckpt", layers=1)
    assert encoder.config.layers == 1
    with pytest.raises(CheckpointError, match="final_norm does not apply"):
        load_encoder(tmp_path / "spin.ckpt", final_norm=True)
    # Without the logger, as s3prl's users save it, and as the state dict alone.
    del values["hyper_parameters"]["trainer"]
    torch.save(values, tmp_path / "spin.ckpt")
    assert load_spin(tmp_path / "spin.ckpt").layer == 2
    torch.save(values["state_dict"], tmp_path / "spin.ckpt")
    assert load_spin(tmp_path / "spin.ckpt").layer == 3


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda v: v["hyper_parameters"]["model"]["encoder"].update(normalize=True), "additional normalisation"),
        (lambda v: v["hyper_parameters"]["model"]["encoder"].update(feat_select="ffn"), "inside of a layer"),
        (lambda v: v["hyper_parameters"]["model"]["encoder"].update(use_layer=9), "reads layer 9"),
        (lambda v: v["state_dict"].update({"pred_head.layers.1.weight": torch.zeros(1)}), "single linear layer"),
        (lambda v: v["hyper_parameters"]["model"]["encoder"].update(disable_pos=True), "disable_pos"),
        (lambda v: v["hyper_parameters"]["model"].update(pred_head={"activate_last": True}), "activate_last"),
        (lambda v: v["hyper_parameters"]["model"]["encoder"].update(use_layer="top"), "reads layer top"),
        (lambda v: v["state_dict"].update({"loss_module.codebook.weight": torch.zeros(5, 7)}), "do not fit an encoder"),
        (lambda v: v["state_dict"].update({"pred_head.layers.0.bias": 3}), "is not a tensor"),
        (lambda v: v["state_dict"]["pred_head.layers.0.bias"].fill_(float("nan")), "NaN or infinite"),
        (lambda v: v["state_dict"].pop("loss_module.codebook.weight"), "not a Spin checkpoint"),
    ],
)
def test_errors(edit: Any, message: str, tmp_path: Path) -> None:
    model, _ = wavlm(max_distance=800, num_buckets=320)
    values = spin_checkpoint(model, model={**SPIN, "encoder": dict(SPIN["encoder"])})
    edit(values)
    torch.save(values, tmp_path / "spin.ckpt")
    with pytest.raises(CheckpointError, match=message):
        load_spin(tmp_path / "spin.ckpt")
