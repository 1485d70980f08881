"""Checkpoints of SpidR against a small implementation of its own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from file_server import Site, serving
from reference_features import difference
from reference_spidr import spidr_codes, spidr_features, spidr_state
from torch import Tensor

import spintok
from spintok.hub import catalogue
from spintok.loading import import_quantizer
from spintok.models.encoder import Encoder
from spintok.models.importers import CheckpointError, load_encoder, load_extractor, load_spidr
from spintok.models.importers.spidr import from_spidr

WAVEFORM = torch.randn(16_000, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.01
SMALL = spidr_state(width=32, layers=3, codebooks=2)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """A checkpoint states no number of attention heads: it follows from the width of the published models."""
    found = spidr_state(width=768, layers=2, codebooks=1, groups=16)
    # At random, the mean of the features would decide the code of nearly all frames.
    found["heads.0.0.bias"] = -found["heads.0.0.weight"] @ spidr_features(found, WAVEFORM, 12)[2].mean(0)
    return found


@pytest.fixture(scope="module")
def wide(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training checkpoint."""
    path = tmp_path_factory.mktemp("spidr") / "spidr.pt"
    torch.save({"model": state, "step": torch.tensor([400_000]), "epoch": torch.tensor([9]), "scaler": {}}, path)
    return path


def test_features_of_all_layers() -> None:
    encoder = Encoder.from_state(*from_spidr(SMALL, heads=4))
    truth = spidr_features(SMALL, WAVEFORM, 4)
    with torch.inference_mode():
        found, _ = encoder.hidden_states(WAVEFORM[None])
        upper, _ = encoder.truncated(2).hidden_states(WAVEFORM[None], layers=[2])
    assert len(found) == len(truth) == 4
    for features, expected in zip([*found, *upper], [*truth, truth[2]], strict=True):
        assert difference(features[0], expected) < 1e-5


def test_company_does_not_matter() -> None:
    encoder = Encoder.from_state(*from_spidr(SMALL, heads=4))
    lengths = torch.tensor([16_000, 399, 9_001])
    with torch.inference_mode():
        together, counts = encoder(WAVEFORM.repeat(3, 1), lengths)
        for row, length, count in zip(together, lengths.tolist(), counts.tolist(), strict=True):
            alone, _ = encoder(WAVEFORM[None, :length])
            assert count == alone.shape[1]
            assert count == 0 or difference(row[:count], alone[0]) < 1e-5
            assert row[count:].eq(0).all()


def test_the_units_of_a_layer(
    capsys: pytest.CaptureFixture[str], wide: Path, state: dict[str, Tensor], tmp_path: Path
) -> None:
    """By command, saved and loaded; the codes of a list are those of each recording alone."""
    truth = spidr_codes(state, WAVEFORM, 12, 2)
    assert len(set(truth.tolist())) > 5
    code, _, error = run(capsys, "import", wide, tmp_path / "t", "--centroids", wide, "--layer", 2, "-q")
    assert code == 0, error
    tokenizer = spintok.load(tmp_path / "t")
    assert (tokenizer.name, tokenizer.codebook_size, tokenizer.frame_rate) == ("spidr-L2-20", 20, 50)
    whole, part = tokenizer.encode([WAVEFORM, WAVEFORM[:9_000]], 16_000)
    np.testing.assert_array_equal(whole.codes, truth)
    np.testing.assert_array_equal(part.codes, spidr_codes(state, WAVEFORM[:9_000], 12, 2))


def test_centroids_of_its_features(wide: Path, state: dict[str, Tensor], tmp_path: Path) -> None:
    features = spidr_features(state, WAVEFORM, 12)[1]
    np.save(tmp_path / "km.npy", features[::5].numpy())
    tokenizer = import_quantizer(wide, tmp_path / "km.npy", layer=1)
    nearest = torch.cdist(features, features[::5]).argmin(1)
    np.testing.assert_array_equal(tokenizer.encode(WAVEFORM, 16_000).codes, nearest)


def test_by_name(monkeypatch: pytest.MonkeyPatch, wide: Path, state: dict[str, Tensor], tmp_path: Path) -> None:
    """A catalogue's entry names the checkpoint once as the encoder and once as what gives the codes."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("SPINTOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPINTOK_OFFLINE", raising=False)
    with serving(Site({"/s.pt": wide.read_bytes()})) as server:
        (tmp_path / "c.toml").write_text(
            f'[files]\n"s.pt" = {{ url = "{server.url}/s.pt" }}\n'
            '[tokenizers.s-20]\nencoder = "s.pt"\ncentroids = "s.pt"\n'
            'layer = 2\nsize = 20\nframe_rate = 50\nnormalised = true\nlicence = "x"\nsource = "x"\ndescription = "x"\n'
        )
        found = catalogue.catalogue(tmp_path / "c.toml")
        monkeypatch.setattr("spintok.loading.catalogue", lambda: found)
        tokenizer = spintok.load("s-20")
        assert (len(server.files), found["s-20"].codes) == (1, "predicted by the encoder")
    np.testing.assert_array_equal(tokenizer.encode(WAVEFORM, 16_000).codes, spidr_codes(state, WAVEFORM, 12, 2))


def test_what_is_refused(wide: Path, tmp_path: Path) -> None:
    def refused(values: object, message: str, layer: int = 3) -> None:
        torch.save(values, tmp_path / "s.pt")
        with pytest.raises(CheckpointError, match=message) as caught:
            load_spidr(tmp_path / "s.pt", layer, heads=4)
        assert "\n" not in str(caught.value)

    refused(SMALL, r"its layers 2 \.\.\. 3 have units, layer 1 has none", layer=1)
    refused({"weight": torch.ones(2, 2)}, "not a checkpoint of SpidR")
    refused({**SMALL, "student.layers.0.adapter.weight": torch.ones(2)}, r"a part that .*: student.layers.0.adapter")
    refused({**SMALL, "heads.1.0.bias": torch.ones(3)}, "predictor of the codes of layer 3 is damaged")
    refused({**SMALL, "heads.1.0.weight": torch.ones(20, 7)}, "do not fit features of width 32")
    refused({**SMALL, "student.layer_norm.bias": torch.full((32,), float("inf"))}, "norm.bias has weights that are NaN")
    refused({n: t for n, t in SMALL.items() if "convs.4" not in n and "layers.2.attention.qkv" not in n}, "missing|fit")
    refused({n: t for n, t in SMALL.items() if "conv_layers.6" not in n}, "convolutions are not those")
    torch.save(SMALL, tmp_path / "s.pt")
    with pytest.raises(CheckpointError, match="does not state its number of attention heads"):
        load_encoder(tmp_path / "s.pt")
    with pytest.raises(CheckpointError, match="final_norm does not apply"):
        load_extractor(wide, final_norm=True)
    with pytest.raises(CheckpointError, match=r"SpidR or of DinoSR.*spintok import .*spidr.pt FOLDER --centroids"):
        spintok.load(wide)


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_checkpoint_of_dinosr_gives_features_but_no_codes(
    capsys: pytest.CaptureFixture[str], state: dict[str, Tensor], tmp_path: Path, part: str
) -> None:
    """DinoSR predicts all codes from its last output, so training has changed the norm that ends it."""
    path, trained = tmp_path / "dinosr.pt", f"student.layers.1.final_layer_norm.{part}"
    torch.save({"model": state | {trained: state[trained] + 0.01 * torch.arange(768)}}, path)
    code, _, error = run(capsys, "import", path, tmp_path / "t", "--centroids", path, "--layer", 2, "-q")
    assert code == 2
    assert error.count("\n") == 1
    assert f"{path}: it is a checkpoint of DinoSR, not of SpidR" in error
    assert not (tmp_path / "t").exists()
    with torch.inference_mode():
        found, _ = load_encoder(path).hidden_states(WAVEFORM[None])
    assert difference(found[2][0], spidr_features(state, WAVEFORM, 12)[2]) < 1e-5


def test_recipes_do_not_train_it(capsys: pytest.CaptureFixture[str], wide: Path, tmp_path: Path) -> None:
    recipe = 'stage = "spin"\nname = "s"\n[[codebooks]]\nname = "primary"\nsize = 4\nwidth = 4\n'
    (tmp_path / "r.toml").write_text(recipe)
    speech = Path(__file__).parents[2] / "speech"
    command = ["train", tmp_path / "r.toml", "--data", speech, "--output", tmp_path / "o", "--init", wide]
    code, _, error = run(capsys, *command)
    assert code != 0
    assert "which spintok does not train" in error
