"""s3prl upstreams by name."""

from pathlib import Path
from typing import Any

import pytest
import torch
from reference_checkpoints import LARGE, fairseq_features, hubert, third_party, wavlm
from reference_features import difference, transformers_model

from spintok.frames import num_frames
from spintok.models.encoder import Encoder
from spintok.models.importers import CheckpointError, load_encoder, load_upstream
from spintok.models.importers.s3prl import native_upstream

pytest.importorskip("s3prl")


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with third_party():
        yield


def save(path: Path, build: Any, **changes: Any) -> Any:
    model, settings = build(**changes)
    if build is wavlm:
        torch.save({"model": model.state_dict(), "cfg": {**settings, "normalize": False}}, path)
    else:
        values = {"task_cfg": {"normalize": bool(changes), "label_rate": 50.0}, "model_cfg": settings}
        torch.save({**values, "model_weight": model.state_dict(), "dictionaries_symbols": [["a", "b", "c"]]}, path)
    return model


@pytest.mark.parametrize(
    ("name", "build", "changes"),
    [("hubert_local", hubert, {}), ("hubert_local", hubert, LARGE), ("wavlm_local", wavlm, {})],
)
def test_native(name: str, build: Any, changes: dict[str, Any], tmp_path: Path) -> None:
    model = save(tmp_path / "model.pt", build, **changes)
    encoder = Encoder.from_state(*native_upstream(name, ckpt=str(tmp_path / "model.pt")))
    upstream = load_upstream(name, ckpt=str(tmp_path / "model.pt"))
    assert (upstream.num_layers, upstream.num_features) == (3, 48)
    waveform = torch.randn(12_345, generator=torch.Generator().manual_seed(0)) * 0.1
    truth = fairseq_features(model, waveform, normalize=bool(changes))
    if changes:
        # s3prl's last hidden state comes after the last layer norm.
        normed = Encoder.from_state(*native_upstream(name, ckpt=str(tmp_path / "model.pt"), final_norm=True))
        with torch.inference_mode():
            assert difference(normed(waveform[None])[0], upstream(waveform[None])[0]) < 1e-5
    with torch.inference_mode():
        actual, _ = encoder.hidden_states(waveform[None])
        for layer in range(4):
            assert difference(actual[layer][0], truth[layer]) < 1e-5
            through, _ = upstream(waveform[None], layer=layer)
            expected = truth[layer]
            if layer == 3 and changes:
                # s3prl's last hidden state comes after the last layer norm.
                expected = model.encoder.layer_norm(expected)
            assert difference(through[0], expected) < 1e-5


def test_an_upstream_runs_each_utterance_alone(tmp_path: Path) -> None:
    """Any other upstream: transformers' HuBERT inside s3prl."""
    transformers = pytest.importorskip("transformers")
    transformers_model("hubert").save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path)
    upstream = load_upstream("hf_hubert_custom", ckpt=str(tmp_path))
    lengths = [16_000, 300, 7_000]
    generator = torch.Generator().manual_seed(0)
    waveforms = [torch.randn(n, generator=generator) * 0.1 for n in lengths]
    with torch.inference_mode():
        padded = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
        features, counts = upstream(padded, torch.tensor(lengths), layer=2)
        assert counts.tolist() == [num_frames(n) for n in lengths] == [49, 0, 21]
        for row, waveform in enumerate(waveforms):
            alone, _ = upstream(waveform[None], layer=2)
            assert torch.equal(features[row, : counts[row]], alone[0])
            assert not features[row, counts[row] :].any()
    with pytest.raises(ValueError, match=r"layers 0 \.\.\. 3"):
        upstream(padded, layer=4)
    with pytest.raises(CheckpointError, match="load_upstream"):
        native_upstream("hf_hubert_custom", ckpt=str(tmp_path))


def test_errors() -> None:
    with pytest.raises(CheckpointError, match="no upstream nonsense"):
        load_encoder("s3prl:nonsense")
    with pytest.raises(CheckpointError, match="steps by 160 samples"):
        load_upstream("fbank")
    with pytest.raises(CheckpointError, match="could not build hubert_local"):
        load_upstream("hubert_local", ckpt="/nonexistent")
