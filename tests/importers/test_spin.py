"""Checkpoints in the form in which Spin's authors released theirs."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from reference_checkpoints import fairseq_features, hubert, wavlm
from reference_features import difference

from spintok.encoder import Encoder
from spintok.importers import CheckpointError, load_encoder, load_spin

MODEL = {
    "encoder": {"type": "HuBERT", "use_layer": 2, "normalize": False, "feat_select": "x"},
    "pred_head": {"type": "DNN", "hid_dims": [16], "dropout": 0, "activation": "ReLU"},
    "loss": {"type": "SwavVQDisentangle", "num_vars": 20, "epsilon": 0.02, "l2_norm": True},
}


def checkpoint(encoder: Any, **changes: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    state = {f"encoder.model.{name}": value for name, value in encoder.state_dict().items() if "final_proj" not in name}
    state["pred_head.layers.0.weight"] = torch.randn(16, 48, generator=generator)
    state["pred_head.layers.0.bias"] = torch.randn(16, generator=generator)
    state["loss_module.codebook.weight"] = torch.randn(20, 16, generator=generator)
    return {
        "epoch": 3,
        "global_step": 5000,
        "pytorch-lightning_version": "1.8.0",
        "state_dict": state,
        "optimizer_states": [{"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"lr": 1e-6}]}],
        "hyper_parameters": {"model": MODEL, "trainer": {"max_steps": 5000}, **changes},
    }


@pytest.mark.parametrize("build", [hubert, wavlm])
def test_tokens_are_the_authors(build: Any, tmp_path: Path) -> None:
    model, _ = build(**({"max_distance": 800, "num_buckets": 320} if build is wavlm else {}))
    values = checkpoint(model)
    torch.save(values, tmp_path / "spin.ckpt")
    spin = load_spin(tmp_path / "spin.ckpt") if build is wavlm else None
    if spin is None:
        # 48 is no published width, so HuBERT's heads cannot be known: see the next test.
        with pytest.raises(CheckpointError, match="attention heads"):
            load_spin(tmp_path / "spin.ckpt")
        return
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


def test_full_width_and_a_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HuBERT Base's width, and the logger object that Lightning pickled with the settings of the released files."""
    module = ModuleType("pytorch_lightning_loggers_wandb")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec("class WandbLogger:\n    def __init__(self): self.project = 'spin'", module.__dict__)
    model, _ = hubert(encoder_embed_dim=768, encoder_ffn_embed_dim=96, encoder_attention_heads=12, conv_pos_groups=16)
    values = checkpoint(model, trainer={"logger": module.WandbLogger()})
    values["state_dict"]["pred_head.layers.0.weight"] = torch.randn(16, 768)
    torch.save(values, tmp_path / "spin.ckpt")
    monkeypatch.delitem(sys.modules, module.__name__)
    spin = load_spin(tmp_path / "spin.ckpt")
    assert (spin.layer, spin.config.heads) == (2, 12)
    assert spin.projection_weight.shape == (16, 768)
    encoder = load_encoder(tmp_path / "spin.ckpt", layers=1)
    assert encoder.config.layers == 1
    # Without the logger, as s3prl's users save it, and as the state dict alone.
    del values["hyper_parameters"]["trainer"]
    torch.save(values, tmp_path / "spin.ckpt")
    assert load_spin(tmp_path / "spin.ckpt").layer == 2
    torch.save(values["state_dict"], tmp_path / "spin.ckpt")
    assert load_spin(tmp_path / "spin.ckpt").layer == 3


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda v: v["hyper_parameters"]["model"]["encoder"].update(normalize=True), "extra normalisation"),
        (lambda v: v["hyper_parameters"]["model"]["encoder"].update(feat_select="ffn"), "inside of a layer"),
        (lambda v: v["hyper_parameters"]["model"]["encoder"].update(use_layer=9), "reads layer 9"),
        (lambda v: v["state_dict"].update({"pred_head.layers.1.weight": torch.zeros(1)}), "one linear map"),
        (lambda v: v["state_dict"].pop("loss_module.codebook.weight"), "no Spin checkpoint"),
    ],
)
def test_errors(edit: Any, message: str, tmp_path: Path) -> None:
    model, _ = wavlm(max_distance=800, num_buckets=320)
    values = checkpoint(model, model={**MODEL, "encoder": dict(MODEL["encoder"])})
    edit(values)
    torch.save(values, tmp_path / "spin.ckpt")
    with pytest.raises(CheckpointError, match=message):
        load_spin(tmp_path / "spin.ckpt")
