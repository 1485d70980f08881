"""Features as transformers itself computes them: the oracle of the encoder's tests."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def transformers_model(kind: str, seed: int = 0, **changes: Any) -> Any:
    """A small random model of transformers in evaluation mode, no parameter at its initial value."""
    import transformers

    names = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2", "wavlm": "WavLM", "data2vec-audio": "Data2VecAudio"}
    settings = {
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "conv_dim": [32] * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        **changes,
    }
    config = getattr(transformers, f"{names[kind]}Config")(**settings)
    torch.manual_seed(seed)
    model = getattr(transformers, f"{names[kind]}Model")(config).eval()
    shake(model, seed)
    return model


def shake(model: torch.nn.Module, seed: int, scale: float = 0.1) -> None:
    """Move every parameter a little, so that norms and biases are not the identity.

    ``scale`` falls with the root of the width, or activations and their rounding would grow with it.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)


def save_w2v_bert(folder: Path, wrapper: str = "Wav2Vec2BertModel", **changes: Any) -> Any:
    """A small random w2v-BERT with its feature extractor, as transformers saves them."""
    import transformers

    settings = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "conv_depthwise_kernel_size": 7,
        "left_max_position_embeddings": 5,
        "right_max_position_embeddings": 3,
        **changes,
    }
    torch.manual_seed(0)
    model = getattr(transformers, wrapper)(transformers.Wav2Vec2BertConfig(**settings)).eval()
    shake(model, 0)
    model.save_pretrained(folder)
    transformers.SeamlessM4TFeatureExtractor(feature_size=80, num_mel_bins=80, padding_value=1).save_pretrained(folder)
    return model


LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}


@torch.inference_mode()
def transformers_features(model: Any, waveform: Tensor, normalize: bool = False) -> list[Tensor]:
    """Every layer's features of one waveform (S,), run alone."""
    if normalize:
        waveform = (waveform - waveform.mean()) / (waveform.var(unbiased=False) + 1e-7).sqrt()
    return [h[0] for h in model(waveform[None], output_hidden_states=True).hidden_states]


def difference(actual: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest expected value."""
    assert actual.shape == expected.shape
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).abs().max() / expected.abs().max())
