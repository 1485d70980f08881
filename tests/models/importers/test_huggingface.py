"""Hugging Face folders in all the forms in which their library writes them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from reference_features import LARGE, difference, shake, transformers_features, transformers_model
from safetensors.torch import load_file

import spintok
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.config import EncoderConfig
from spintok.models.importers import CheckpointError, load_encoder
from spintok.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

WAVEFORM = torch.randn(16_000, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.01


def assert_equal(folder: Path, model: Any, normalize: bool) -> None:
    with torch.inference_mode():
        actual, _ = load_encoder(folder).hidden_states(WAVEFORM[None])
    expected = transformers_features(model, WAVEFORM, normalize)
    assert len(actual) == len(expected)
    for features, truth in zip(actual, expected, strict=True):
        assert difference(features[0], truth) < 1e-5


@pytest.mark.parametrize(
    ("kind", "wrapper"),
    [
        ("hubert", "HubertForCTC"),
        ("wav2vec2", "Wav2Vec2ForPreTraining"),
        ("wav2vec2", "Wav2Vec2ForCTC"),
        ("wavlm", "WavLMForCTC"),
    ],
)
def test_heads_are_left_out(kind: str, wrapper: str, tmp_path: Path) -> None:
    config = transformers_model(kind).config
    torch.manual_seed(0)
    model = getattr(transformers, wrapper)(config).eval()
    shake(model, 0)
    model.save_pretrained(tmp_path)
    assert_equal(tmp_path, getattr(model, kind), normalize=False)


@pytest.mark.parametrize("kernel", [7, 8])
def test_data2vec(tmp_path: Path, kernel: int) -> None:
    """Five positional convolutions; the features of an utterance are its own in a batch too."""
    model = transformers_model("data2vec-audio", num_conv_pos_embeddings=5, conv_pos_kernel_size=kernel)
    model.save_pretrained(tmp_path)
    # Without a preprocessor_config.json: layer norms in the front end, so the waveform is normalised.
    assert_equal(tmp_path, model, normalize=True)
    encoder = load_encoder(tmp_path)
    assert encoder.config.positional_stack == 5
    batch, lengths = torch.stack([WAVEFORM, WAVEFORM]), torch.tensor([16_000, 9_000])
    with torch.inference_mode():
        together, counts = encoder(batch, lengths)
        alone, _ = encoder(WAVEFORM[None, :9_000])
    assert difference(together[1, : counts[1]], alone[0]) < 1e-5
    assert together[1, counts[1] :].eq(0).all()
    again = type(encoder).from_config(encoder.to_config())
    assert again.config == encoder.config
    assert "positional_stack" not in EncoderConfig().to_dict()


def test_shards(tmp_path: Path) -> None:
    model = transformers_model("hubert")
    model.save_pretrained(tmp_path, max_shard_size="50kB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    assert_equal(tmp_path, model, normalize=False)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    index["weight_map"]["encoder.layer_norm.bias"] = "../elsewhere.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="outside the folder"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("old_names", [False, True])
def test_pytorch_model_bin(old_names: bool, tmp_path: Path) -> None:
    """The file of transformers before 4.35, in half precision, also with the weight norm's names before torch 2.1."""
    model = transformers_model("wavlm").half().float()
    model.save_pretrained(tmp_path)
    weights = {name: value.half() for name, value in load_file(tmp_path / "model.safetensors").items()}
    if old_names:
        weights = {
            name.replace("parametrizations.weight.original0", "weight_g").replace(
                "parametrizations.weight.original1", "weight_v"
            ): value
            for name, value in weights.items()
        }
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    assert_equal(tmp_path, model, normalize=False)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("changes", [{}, LARGE])
def test_the_processor_says_whether_to_normalize(normalize: bool, changes: dict[str, Any], tmp_path: Path) -> None:
    model = transformers_model("wav2vec2", **changes)
    model.save_pretrained(tmp_path)
    processor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize)
    processor.save_pretrained(tmp_path)
    seen = processor(WAVEFORM.numpy(), sampling_rate=16_000, return_tensors="pt").input_values[0]
    with torch.inference_mode():
        actual, _ = load_encoder(tmp_path).hidden_states(WAVEFORM[None])
    for features, truth in zip(actual, transformers_features(model, seen), strict=True):
        assert difference(features[0], truth) < 1e-5


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("changes", [{}, LARGE])
def test_a_saved_processor_says_whether_to_normalize(normalize: bool, changes: dict[str, Any], tmp_path: Path) -> None:
    """transformers 5 stores the feature extractor of a processor inside processor_config.json."""
    transformers_model("hubert", **changes).save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text('{"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "A": 5}')
    processor = transformers.Wav2Vec2Processor(
        transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize),
        transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json")),
    )
    processor.save_pretrained(tmp_path)
    assert load_encoder(tmp_path).config.normalize_waveform == normalize
    # It counts more than a file that an older version left, and one without an extractor does not count.
    other = transformers.Wav2Vec2FeatureExtractor(do_normalize=not normalize)
    other.save_pretrained(tmp_path)
    reference = transformers.AutoFeatureExtractor.from_pretrained(tmp_path).do_normalize
    assert load_encoder(tmp_path).config.normalize_waveform == reference == normalize
    (tmp_path / "processor_config.json").write_text('{"processor_class": "Wav2Vec2Processor"}')
    assert load_encoder(tmp_path).config.normalize_waveform == (not normalize)


@pytest.mark.parametrize("kind", ["hubert", "wavlm"])
def test_the_final_norm_of_large_models_is_a_choice(kind: str, tmp_path: Path) -> None:
    """Without it hidden_states[-1] of transformers 5, with it last_hidden_state."""
    model = transformers_model(kind, **LARGE)
    model.save_pretrained(tmp_path)
    raw, normed = load_encoder(tmp_path), load_encoder(tmp_path, final_norm=True)
    layers = raw.config.layers
    with torch.inference_mode():
        waveform = (WAVEFORM - WAVEFORM.mean()) / (WAVEFORM.var(correction=0) + 1e-7).sqrt()
        truth = model(waveform[None], output_hidden_states=True)
        states, _ = normed.hidden_states(WAVEFORM[None])
        assert difference(raw(WAVEFORM[None])[0], truth.hidden_states[-1]) < 1e-5
        assert difference(states[-1], truth.last_hidden_state) < 1e-5
        assert difference(states[-2], truth.hidden_states[-2]) < 1e-5
        assert difference(states[-1], truth.hidden_states[-1]) > 0.1
        # The lower layers have no norm after them.
        assert torch.equal(normed.truncated(layers - 1)(WAVEFORM[None])[0], states[-2])
    assert normed.to_config()["final_norm"] is True
    assert "final_norm" not in raw.to_config()
    assert "final_norm" not in normed.truncated(layers - 1).to_config()
    book = Codebook(CodebookConfig("primary", 5, 48, 48, "l2", projection=False))
    tokenizer = Tokenizer(normed, [book], name="normed")
    assert tokenizer.fingerprint != Tokenizer(raw, [book], name="raw").fingerprint
    tokenizer.save(tmp_path / "saved")
    again = spintok.load(tmp_path / "saved")
    assert again.fingerprint == tokenizer.fingerprint
    assert again.encode(WAVEFORM, 16_000) == tokenizer.encode(WAVEFORM, 16_000)


def test_base_models_have_no_final_norm(tmp_path: Path) -> None:
    transformers_model("hubert").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match='final_norm is for encoders with norm_position "pre"'):
        load_encoder(tmp_path, final_norm=True)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"model_type": "whisper"}, "model_type is 'whisper'"),
        ({"hidden_act": "relu"}, "activation functions are"),
        ({"conv_stride": [5, 2, 2, 2, 2, 2, 3]}, "step by 480"),
        ({"num_attention_heads": 5}, "multiple of heads"),
    ],
)
def test_other_models_are_refused(edit: dict[str, Any], message: str, tmp_path: Path) -> None:
    transformers_model("hubert").save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | edit))
    with pytest.raises(CheckpointError, match=message):
        load_encoder(tmp_path)


def test_bad_folders(tmp_path: Path) -> None:
    transformers_model("hubert", conv_pos_batch_norm=True).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"do not have: encoder\.pos_conv_embed\.batch_norm"):
        load_encoder(tmp_path)
    with pytest.raises(CheckpointError, match=r"without their config\.json"):
        load_encoder(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        load_encoder(tmp_path)
