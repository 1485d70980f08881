"""Small random models of the libraries whose checkpoints spintok imports, and their own features."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from reference_features import shake
from torch import Tensor

HUBERT = {
    "label_rate": 50.0,
    "encoder_layers": 3,
    "encoder_embed_dim": 48,
    "encoder_ffn_embed_dim": 96,
    "encoder_attention_heads": 4,
    "conv_feature_layers": "[(32,10,5)] + [(32,3,2)] * 4 + [(32,2,2)] * 2",
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "dropout_input": 0.1,
}
LARGE = {"extractor_mode": "layer_norm", "layer_norm_first": True, "conv_bias": True}
WAVLM = {
    **{name: value for name, value in HUBERT.items() if name != "label_rate"},
    "relative_position_embedding": True,
    "num_buckets": 32,
    "max_distance": 60,
    "gru_rel_pos": True,
}
SPIN = {
    "encoder": {"type": "HuBERT", "use_layer": 2, "normalize": False, "feat_select": "x"},
    "pred_head": {"type": "DNN", "hid_dims": [16], "dropout": 0, "activation": "ReLU"},
    "loss": {"type": "SwavVQDisentangle", "num_vars": 20, "epsilon": 0.02, "l2_norm": True},
}


@contextmanager
def third_party() -> Iterator[None]:
    """Other libraries warn of their own use of torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def hubert(seed: int = 0, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """s3prl's copy of fairseq's HuBERT, and its settings."""
    pytest.importorskip("s3prl")
    with third_party():
        from s3prl.upstream.hubert.hubert_model import HubertConfig, HubertModel, HubertPretrainingConfig

        settings = {**HUBERT, **changes}
        task = HubertPretrainingConfig(label_rate=50.0)
        torch.manual_seed(seed)
        model = HubertModel(HubertConfig(**settings), task, [["a", "b", "c"]]).eval()
        shake(model, seed, scale=0.1 * (48 / settings["encoder_embed_dim"]) ** 0.5)
    return model, settings


def wav2vec2(seed: int = 0, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """s3prl's copy of fairseq's wav2vec 2.0, and its settings."""
    pytest.importorskip("s3prl")
    with third_party():
        from s3prl.upstream.wav2vec2.wav2vec2_model import Wav2Vec2Config, Wav2Vec2Model

        settings = {name: value for name, value in HUBERT.items() if name != "label_rate"} | changes
        torch.manual_seed(seed)
        model = Wav2Vec2Model(Wav2Vec2Config(**settings)).eval()
        shake(model, seed)
    return model, settings


def wavlm(seed: int = 0, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """s3prl's copy of Microsoft's WavLM, and its settings."""
    pytest.importorskip("s3prl")
    with third_party():
        from s3prl.upstream.wavlm.WavLM import WavLM, WavLMConfig

        settings = {**WAVLM, **changes}
        torch.manual_seed(seed)
        model = WavLM(WavLMConfig(settings)).eval()
        shake(model, seed)
    return model, settings


@torch.inference_mode()
def fairseq_features(model: Any, waveform: Tensor, normalize: bool = False) -> list[Tensor]:
    """Every layer's features of one waveform (S,), run alone: what goes into each layer, and the last one's output."""
    if normalize:
        waveform = torch.nn.functional.layer_norm(waveform, waveform.shape)
    count = int((waveform.shape[0] - 400) // 320 + 1)
    inputs: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(
            lambda _, args, out: inputs.extend([args[0]] if not inputs else []) or inputs.append(out[0])
        )
        for layer in model.encoder.layers
    ]
    with third_party():
        model.extract_features(waveform[None], padding_mask=None, mask=False)
    for hook in hooks:
        hook.remove()
    return [x.transpose(0, 1)[0, :count] for x in inputs]


def spin_checkpoint(encoder: Any, **changes: Any) -> dict[str, Any]:
    """What PyTorch Lightning saved of Spin with this encoder: a head of 16 numbers and 20 codewords, at random."""
    generator = torch.Generator().manual_seed(1)
    state = {f"encoder.model.{name}": value for name, value in encoder.state_dict().items() if "final_proj" not in name}
    width = len(state["encoder.model.encoder.layer_norm.weight"])
    state["pred_head.layers.0.weight"] = torch.randn(16, width, generator=generator)
    state["pred_head.layers.0.bias"] = torch.randn(16, generator=generator)
    state["loss_module.codebook.weight"] = torch.randn(20, 16, generator=generator)
    return {
        "epoch": 3,
        "global_step": 5000,
        "pytorch-lightning_version": "1.8.0",
        "state_dict": state,
        "optimizer_states": [{"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"lr": 1e-6}]}],
        "hyper_parameters": {"model": SPIN, "trainer": {"max_steps": 5000}, **changes},
    }
