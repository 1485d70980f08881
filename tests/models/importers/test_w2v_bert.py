"""w2v-BERT 2.0 against the feature extractor and the model of transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run
from reference_features import difference, save_w2v_bert
from safetensors.torch import load_file, save_file
from torch import Tensor
from voices import voices

import spintok
from spintok.chunking import Window
from spintok.loading import import_quantizer
from spintok.models.importers import CheckpointError, W2vBert, load_encoder, load_extractor
from spintok.progress import no_progress
from spintok.train.clustering import KMeansConfig
from spintok.train.recipe import KMeansRecipe
from spintok.train.stages.kmeans import run as kmeans

transformers = pytest.importorskip("transformers")

NOISE = torch.randn(37_777, generator=torch.Generator().manual_seed(0)) * 0.1
CHANGING = NOISE * torch.linspace(0.01, 1, 37_777)

# float32: the extractor's log-mel energies, near 10, and their means, and the layers of both.
TOLERANCE = 1e-5
# The deviation of 2 to 4 log-mel frames may be a hundredth of them, and then scales that rounding up.
TOLERANCE_OF_FEW = 3e-4


@torch.inference_mode()
def expected(folder: Path, model: Any, waveform: Tensor) -> list[Tensor]:
    """``hidden_states`` of the frames that the extractor's attention mask keeps."""
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor(waveform.numpy(), sampling_rate=16_000, return_tensors="pt")
    found = model(**inputs, output_hidden_states=True).hidden_states
    return [states[0, inputs["attention_mask"][0].bool()] for states in found]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("w2v-bert")
    return folder, save_w2v_bert(folder)


@pytest.fixture(scope="module")
def tokenizer_folder(saved: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of layer 1 and centroids among its features, by ``spintok import``."""
    folder = tmp_path_factory.mktemp("tokenizer")
    encoder = load_extractor(saved[0])
    with torch.inference_mode():
        features, _ = encoder(CHANGING[None], layer=1)
    np.save(folder / "km.npy", features[0, ::8].numpy())
    import_quantizer(saved[0], folder / "km.npy", layer=1, name="w2v-9").save(folder / "t")
    return folder / "t"


@pytest.mark.parametrize("samples", [560, 719, 720, 879, 880, 16_000, 16_079, 16_080, 16_240])
def test_features_are_those_of_transformers(saved: tuple[Path, Any], samples: int) -> None:
    """With an even and an odd number of log-mel frames, and just below the next one."""
    folder, model = saved
    waveform = CHANGING[-samples:]
    truth = expected(folder, model, waveform)
    with torch.inference_mode():
        found, counts = load_extractor(folder).hidden_states(waveform[None])
    assert counts.tolist() == [len(truth[0])] == [(samples - 560) // 320 + 1]
    assert len(found) == len(truth) == 3
    for features, one in zip(found, truth, strict=True):
        assert difference(features[0], one) < (TOLERANCE_OF_FEW if samples < 1_000 else TOLERANCE)


def test_too_short(saved: tuple[Path, Any]) -> None:
    encoder = load_extractor(saved[0])
    features, counts = encoder(NOISE[None, :559])
    assert (counts.tolist(), tuple(features.shape)) == ([0], (1, 0, 32))
    with pytest.raises(ValueError, match=r"layers 0 \.\.\. 2, asked for \[3\]"):
        encoder(NOISE[None], layer=3)
    with pytest.raises(ValueError, match="lengths must be 1 numbers"):
        encoder(NOISE[None], torch.tensor([50_000]))


def test_company_and_padding_do_not_matter(saved: tuple[Path, Any], tokenizer_folder: Path) -> None:
    encoder = load_extractor(saved[0])
    lengths = [37_777, 559, 16_080, 9_001]
    padded = torch.full((4, 37_777), float("nan"))
    for row, length in zip(padded, lengths, strict=True):
        row[:length] = CHANGING[:length]
    with torch.inference_mode():
        together, counts = encoder(padded, torch.tensor(lengths))
        for row, length, count in zip(together, lengths, counts.tolist(), strict=True):
            alone, _ = encoder(CHANGING[None, :length])
            assert torch.equal(row[:count], alone[0])
            assert row[count:].eq(0).all()
    tokenizer = spintok.load(tokenizer_folder)
    waveforms = [CHANGING[:length] for length in lengths]
    both = tokenizer.encode(waveforms, 16_000)
    assert both == [tokenizer.encode(one, 16_000) for one in waveforms]
    assert len(set(both[0].codes.tolist())) > 5


def test_parts_are_normalised_by_the_whole_recording(saved: tuple[Path, Any], tokenizer_folder: Path) -> None:
    encoder = load_extractor(saved[0])
    blocks = [CHANGING[:1], CHANGING[1:399], CHANGING[399:20_001], CHANGING[20_001:]]
    statistics = encoder.statistics(blocks)
    assert statistics is not None
    assert statistics.patches.tolist() == [(37_777 - 400) // 160 + 1]
    with torch.inference_mode():
        whole, _ = encoder(CHANGING[None])
        again, _ = encoder(CHANGING[None], statistics=statistics)
        alone, _ = encoder(CHANGING[None, :5_040])
        # Layer 0 reads only its own frames, and the normalisation of all.
        part, _ = encoder(CHANGING[None, :5_040], layer=0, statistics=statistics)
        first, _ = encoder(CHANGING[None], layer=0)
    assert difference(again, whole) < TOLERANCE
    assert difference(part, first[:, :15]) < TOLERANCE
    assert difference(alone, whole[:, :15]) > 0.1
    tokenizer = spintok.load(tokenizer_folder)
    codes = tokenizer.encode(CHANGING, 16_000).codes
    tokenizer.window = Window(40, 30)
    assert len(CHANGING) > tokenizer.max_samples
    parts = tokenizer.encode(CHANGING, 16_000).codes
    assert len(parts) == len(codes) == 117
    assert (parts != codes).mean() < 0.1


def test_digital_silence(saved: tuple[Path, Any]) -> None:
    features, _ = load_extractor(saved[0])(torch.zeros(1, 16_000))
    assert features.isfinite().all()


def test_saved_and_loaded_it_gives_the_same_codes(saved: tuple[Path, Any], tokenizer_folder: Path) -> None:
    """The layer above is gone, and nothing of the encoder's folder is needed."""
    config = json.loads((tokenizer_folder / "config.json").read_text())
    major = transformers.__version__.partition(".")[0]
    assert (config["encoder"]["type"], config["encoder"]["transformers"]) == ("w2v-bert", major)
    assert config["encoder"]["layers"] == 1
    weights = load_file(tokenizer_folder / "model.safetensors")
    assert not any(".layers.1." in name for name in weights)
    tokenizer = spintok.load(tokenizer_folder)
    made = import_quantizer(saved[0], tokenizer_folder.parent / "km.npy", layer=1, name="w2v-9")
    assert tokenizer.fingerprint == made.fingerprint
    assert tokenizer.encode(NOISE, 16_000) == made.encode(NOISE, 16_000)
    assert (tokenizer.grid.hop, tokenizer.grid.reach, tokenizer.frame_rate) == (320, 560, 50)
    with torch.no_grad():
        next(made.encoder.parameters()).add_(1)
    assert made.fingerprint != tokenizer.fingerprint


def test_streams_go_by_windows(tokenizer_folder: Path) -> None:
    tokenizer = spintok.load(tokenizer_folder)
    whole = tokenizer.encode(CHANGING, 16_000, latency=0.32)
    assert whole.num_frames == 117
    stream = tokenizer.stream(0.32)
    parts = [stream.push(part.numpy(), 16_000) for part in CHANGING.split(5_001)]
    np.testing.assert_array_equal(np.concatenate([part.codes for part in [*parts, stream.close()]]), whole.codes)


def test_by_command(capsys: pytest.CaptureFixture[str], saved: tuple[Path, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "km.npy", np.eye(32, dtype=np.float32)[:4])
    code, _, error = run(
        capsys, "import", saved[0], tmp_path / "t", "--centroids", tmp_path / "km.npy", "--layer", 2, "-q"
    )
    assert code == 0, error
    out = run(capsys, "info", tmp_path / "t")[1]
    assert "w2v-bert" in out
    assert "50 a second, each of 560 samples" in out
    (tmp_path / "r.toml").write_text(
        'stage = "spin"\nname = "s"\n[[codebooks]]\nname = "primary"\nsize = 4\nwidth = 4\n'
    )
    recipe = [tmp_path / "r.toml", "--data", Path(__file__).parents[2] / "speech", "--output", tmp_path / "o"]
    code, _, error = run(capsys, "train", *recipe, "--init", saved[0])
    assert code != 0
    assert "has no layers to train in spintok (its encoder is w2v-bert)" in error


def test_the_k_means_stage_clusters_its_features(saved: tuple[Path, Any], tmp_path: Path) -> None:
    settings = KMeansConfig(size=5, sample=200, restarts=1)
    recipe = KMeansRecipe(name="k", encoder=str(saved[0]), layer=2, kmeans=settings)
    tokenizer = kmeans(recipe, voices()[:2], tmp_path, no_progress)
    assert isinstance(tokenizer.encoder, W2vBert)
    assert len(set(tokenizer.encode(voices()[0].path).codes.tolist())) > 2


def test_a_model_for_another_task(saved: tuple[Path, Any], tmp_path: Path) -> None:
    model = save_w2v_bert(tmp_path, "Wav2Vec2BertForCTC", vocab_size=9, add_adapter=True)
    encoder = load_extractor(tmp_path)
    assert isinstance(encoder, W2vBert)
    inputs = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)(
        NOISE.numpy(), sampling_rate=16_000, return_tensors="pt"
    )
    with torch.inference_mode():
        projected, _ = model.wav2vec2_bert.feature_projection(inputs["input_features"])
        truth = model.wav2vec2_bert.encoder(projected, attention_mask=inputs["attention_mask"]).last_hidden_state
        found, counts = encoder(NOISE[None])
    assert difference(found[0], truth[0, : int(counts[0])]) < TOLERANCE


def test_what_is_refused(saved: tuple[Path, Any], tokenizer_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_w2v_bert(folder)
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")

    def refused(message: str, **options: bool) -> None:
        with pytest.raises(CheckpointError, match=message) as caught:
            load_extractor(folder, **options)
        assert "\n" not in str(caught.value)

    with pytest.raises(CheckpointError, match=r"runs through transformers: load_extractor.*no recipe trains it"):
        load_encoder(folder)
    refused("final_norm does not apply", final_norm=True)
    for change, message in (
        ({"position_embeddings_type": "rotary"}, "positions are 'rotary'"),
        ({"feature_projection_input_dim": 80}, "inputs 80 numbers wide"),
        ({"hidden_act": "os.system"}, "activation is swish"),
        ({"num_hidden_layers": 3}, "weights do not fit config.json"),
        ({"num_hidden_layers": 10**9}, "layers must be an integer in 0"),
        ({"hidden_size": "wide"}, "width must be an integer"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        refused(message)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {**weights, "encoder.layers.0.ffn1.output_dense.bias": torch.full((32,), float("nan"))},
        folder / "model.safetensors",
    )
    refused("ffn1.output_dense.bias has weights that are NaN")
    save_file(weights, folder / "model.safetensors")
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**settings, "stride": 3}))
    refused("feature extractor has stride 3, not 2")
    described = json.loads((tokenizer_folder / "config.json").read_text())
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "model.safetensors").write_bytes((tokenizer_folder / "model.safetensors").read_bytes())
    for change, message in (
        ({"transformers": "4"}, r"transformers 4 made these features and \d+ is installed: pip install"),
        ({"layers": 2}, "does not fit config.json"),
        ({"options": 1}, "unknown field options"),
    ):
        (copy / "config.json").write_text(json.dumps({**described, "encoder": {**described["encoder"], **change}}))
        with pytest.raises(ValueError, match=message) as caught:
            spintok.load(copy)
        assert "\n" not in str(caught.value)
