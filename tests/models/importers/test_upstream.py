"""s3prl upstreams as encoders of tokenizers: built, clustered, saved and loaded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference_checkpoints import hubert, third_party
from reference_features import transformers_model
from voices import voices

import spintok
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.encoder import Encoder
from spintok.models.importers import CheckpointError, Upstream, load_extractor, load_upstream
from spintok.progress import no_progress
from spintok.tokenizer import Tokenizer
from spintok.train.clustering import KMeansConfig
from spintok.train.recipe import KMeansRecipe
from spintok.train.stages.kmeans import run

pytest.importorskip("s3prl")
transformers = pytest.importorskip("transformers")

NOISE = np.random.default_rng(0).standard_normal(20_000).astype(np.float32) * 0.1


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with third_party():
        yield


@pytest.fixture
def ckpt(tmp_path: Path) -> Path:
    """transformers' HuBERT with random weights, which s3prl runs as hf_hubert_custom."""
    folder = tmp_path / "hf"
    transformers_model("hubert").save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    return folder


def tokenizer_of(upstream: Upstream) -> Tokenizer:
    torch.manual_seed(0)
    book = Codebook(CodebookConfig("primary", 30, upstream.num_features, 8, "dot", projection=True))
    return Tokenizer(upstream, [book], layer=2, name="through-s3prl")


def test_saved_and_loaded_it_gives_the_same_codes(ckpt: Path, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(load_upstream("hf_hubert_custom", ckpt=str(ckpt)))
    codes = tokenizer.encode(NOISE, 16_000)
    assert len(set(codes.codes.tolist())) > 5
    tokenizer.save(tmp_path / "t")
    described = json.loads((tmp_path / "t/config.json").read_text())["encoder"]
    assert (described["type"], described["name"], described["layers"]) == ("s3prl", "hf_hubert_custom", 3)
    again = spintok.load(tmp_path / "t")
    assert again.encode(NOISE, 16_000) == codes
    assert again.fingerprint == tokenizer.fingerprint
    # The fingerprint is of what is computed, not of where the checkpoint is.
    moved = ckpt.rename(tmp_path / "elsewhere")
    (tmp_path / "t/config.json").write_text((tmp_path / "t/config.json").read_text().replace(str(ckpt), str(moved)))
    assert spintok.load(tmp_path / "t").fingerprint == tokenizer.fingerprint


def test_the_saved_weights_count(ckpt: Path, tmp_path: Path) -> None:
    upstream = load_upstream("hf_hubert_custom", ckpt=str(ckpt))
    with torch.no_grad():
        for parameter in upstream.parameters():
            parameter.mul_(1.1)
    tokenizer = tokenizer_of(upstream)
    tokenizer.save(tmp_path / "t")
    assert spintok.load(tmp_path / "t").encode(NOISE, 16_000) == tokenizer.encode(NOISE, 16_000)


def test_what_could_give_other_codes_is_refused(ckpt: Path, tmp_path: Path) -> None:
    tokenizer_of(load_upstream("hf_hubert_custom", ckpt=str(ckpt))).save(tmp_path / "t")
    path = tmp_path / "t/config.json"
    config = json.loads(path.read_text())
    for change, message in (
        ({"s3prl": "0.0.1"}, r"pip install s3prl==0\.0\.1"),
        ({"ckpt": str(tmp_path / "gone")}, "is not there"),
        ({"layers": 4}, r"layers 0 \.\.\. 3"),
        ({"ckpt": 7}, "must be texts"),
        ({"options": {}}, "unknown field options"),
    ):
        path.write_text(json.dumps({**config, "encoder": {**config["encoder"], **change}}))
        with pytest.raises(ValueError, match=message) as caught:
            spintok.load(tmp_path / "t")
        assert "\n" not in str(caught.value)
    path.write_text(json.dumps(config))
    settings = json.loads((ckpt / "config.json").read_text())
    (ckpt / "config.json").write_text(json.dumps({**settings, "layer_norm_eps": 1e-3}))
    with pytest.raises(ValueError, match="has changed since"):
        spintok.load(tmp_path / "t")


def test_an_encoder_of_our_own_architecture_is_converted(tmp_path: Path) -> None:
    model, settings = hubert()
    values = {"task_cfg": {"normalize": False, "label_rate": 50.0}, "model_cfg": settings}
    torch.save(
        {**values, "model_weight": model.state_dict(), "dictionaries_symbols": [["a", "b", "c"]]}, tmp_path / "m.pt"
    )
    assert isinstance(load_extractor(f"s3prl:hubert_local:{tmp_path}/m.pt"), Encoder)


def test_the_k_means_stage_clusters_its_features(ckpt: Path, tmp_path: Path, monkeypatch) -> None:
    # transformers looks on the Hub for files that the folder does not have, again and again if there is no network.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = f"s3prl:hf_hubert_custom:{ckpt}"
    recipe = KMeansRecipe(name="k", encoder=source, layer=2, kmeans=KMeansConfig(size=12, sample=2000, restarts=1))
    tokenizer = run(recipe, voices()[:2], tmp_path, no_progress)
    tokenizer.save(tmp_path / "k")
    again = spintok.load(tmp_path / "k")
    path = voices()[0].path
    assert isinstance(again.encoder, Upstream)
    assert len(set(again.encode(path).codes.tolist())) > 4
    assert again.encode(path) == tokenizer.encode(path)
    with pytest.raises(CheckpointError, match="could not build"):
        load_extractor("s3prl:hf_hubert_custom:/nonexistent")
