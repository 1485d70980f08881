"""Repositories of the Hugging Face Hub, by huggingface_hub against a server on this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from hub_server import Hub, connected_hub
from reference_features import difference, save_w2v_bert, transformers_features, transformers_model
from small_models import save_tiny

import spintok
from spintok.hub.download import DownloadError
from spintok.hub.huggingface import Repository, parse_repository
from spintok.hub.registry import read_card
from spintok.loading import import_quantizer, load_featurizer
from spintok.serialization import TokenizerError

huggingface_hub = pytest.importorskip("huggingface_hub")

SPEECH = torch.randn(16_000, generator=torch.Generator().manual_seed(0)) * 0.1


ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub, to which huggingface_hub sends its requests, and an empty cache."""
    with connected_hub(monkeypatch, tmp_path) as server:
        monkeypatch.chdir(tmp_path)
        yield server


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def tiny(tmp_path: Path) -> dict[str, bytes]:
    return files_of(save_tiny(tmp_path / "made"))


@pytest.mark.parametrize(
    ("text", "repository"),
    [
        ("org/name", Repository("org/name", None)),
        ("org/name@v1.0", Repository("org/name", "v1.0")),
        ("org/name@feature/x", Repository("org/name", "feature/x")),
        ("name", None),
        ("./org/name", None),
        ("/org/name", None),
        ("a/b/c", None),
        ("org/name@", None),
        ("torchaudio:HUBERT_BASE", None),
        ("../name", None),
    ],
)
def test_names(text: str, repository: Repository | None) -> None:
    assert parse_repository(text) == repository


def test_a_tokenizer_and_its_revisions(hub: Hub, tiny: dict[str, bytes], tmp_path: Path) -> None:
    commit = hub.add(
        "org/tiny", {**tiny, "pytorch_model.bin": b"a pickle", "optimizer.pt": b"large", "README.md": b"-"}
    )
    other = files_of(save_tiny(tmp_path / "other", size=9))
    hub.add("org/tiny", other, "k9")
    seen: list[tuple[str, int, int]] = []
    tokenizer = spintok.load("org/tiny", progress=lambda name, done, total: seen.append((name, done, total)))
    assert tokenizer.fingerprint == spintok.load(tmp_path / "made").fingerprint
    # The configuration, the card and the safetensors; nothing else.
    fetched = {path.rpartition("/")[2] for path in hub.asked if path.startswith("GET /org/tiny/resolve")}
    assert fetched == {"config.json", "model.safetensors", "README.md"}
    size = len(tiny["model.safetensors"])
    assert [one for one in seen if one[0] == "org/tiny/model.safetensors"][-1] == (
        "org/tiny/model.safetensors",
        size,
        size,
    )
    assert spintok.load("org/tiny@k9").codebook_size == 9
    assert spintok.load(f"org/tiny@{commit}").fingerprint == tokenizer.fingerprint
    # A local folder of the name comes first.
    save_tiny(tmp_path / "org" / "tiny", size=5)
    assert spintok.load("org/tiny").codebook_size == 5


def test_the_cache_serves_without_a_network(hub: Hub, tiny: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/tiny", tiny)
    with pytest.raises(DownloadError, match="org/tiny: not in the cache of the Hub.*spintok download org/tiny"):
        spintok.load("org/tiny", offline=True)
    fingerprint = spintok.load("org/tiny").fingerprint
    asked = len(hub.asked)
    assert spintok.load("org/tiny", offline=True).fingerprint == fingerprint
    monkeypatch.setenv("SPINTOK_OFFLINE", "1")
    assert spintok.load("org/tiny").fingerprint == fingerprint
    assert len(hub.asked) == asked
    monkeypatch.delenv("SPINTOK_OFFLINE")
    # Unless it is told to, it does not pass off what is in the cache as what the Hub has.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match=r"http://127.0.0.1:9 cannot be reached: .*--offline") as caught:
        spintok.load("org/tiny")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2", "wavlm"])
@pytest.mark.parametrize("weights", ["safetensors", "shards", "pickle"])
def test_encoders_of_transformers(hub: Hub, kind: str, weights: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    model = transformers_model(kind)
    model.save_pretrained(tmp_path / "saved", max_shard_size="50kB" if weights == "shards" else "1GB")
    if weights == "pickle":
        torch.save(model.state_dict(), tmp_path / "saved/pytorch_model.bin")
        (tmp_path / "saved/model.safetensors").unlink()
    hub.add("org/encoder", {**files_of(tmp_path / "saved"), "tf_model.h5": b"-"})
    featurizer = load_featurizer("org/encoder")
    assert featurizer.name == "encoder"
    (features,), _ = featurizer.encoder.hidden_states(SPEECH[None], layers=[2])
    assert difference(features[0], transformers_features(model, SPEECH, False)[2]) < 1e-5
    assert not any("tf_model" in path for path in hub.asked if "resolve" in path)
    with pytest.raises(
        TokenizerError, match="org/encoder: contains an encoder, not a tokenizer.*spintok import org/enc"
    ):
        spintok.load("org/encoder")


def test_w2v_bert(hub: Hub, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    save_w2v_bert(tmp_path / "saved")
    hub.add("org/w2v", files_of(tmp_path / "saved"))
    np.save(tmp_path / "km.npy", np.eye(32, dtype=np.float32)[:6])
    tokenizer = import_quantizer("org/w2v", tmp_path / "km.npy", layer=2)
    assert (tokenizer.name, tokenizer.encode(SPEECH, 16_000).num_frames) == ("w2v-L2-km6", 49)
    assert any("preprocessor_config.json" in path for path in hub.asked)
    with pytest.raises(TokenizerError, match="org/w2v: contains an encoder, not a tokenizer.*spintok import org/w2v"):
        spintok.load("org/w2v")


def test_what_cannot_be_loaded(hub: Hub, tiny: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/tiny", tiny)
    hub.add("org/text", {"README.md": b"-", "data.csv": b"1"})
    hub.add("org/bare", {"config.json": b"{}"})
    hub.add("org/bert", {"config.json": b'{"model_type": "bert"}', "model.safetensors": tiny["model.safetensors"]})
    hub.add("org/gated", tiny)
    hub.add("org/private", tiny)
    hub.gated.add("org/gated")
    hub.private.add("org/private")
    for name, message in {
        "org/nothing": "org/nothing: there is no such folder here, and .* has no such repository for you",
        "org/private": "no such repository for you: .*HF_TOKEN if it is private",
        "org/gated": "its authors ask for consent: .*/org/gated.*hf auth login",
        "org/tiny@v9": "has no branch, tag or commit 'v9'",
        "org/text": "no config.json, so it holds neither a tokenizer of spintok nor a model of transformers",
        "org/bare": "a config.json but none of model.safetensors and pytorch_model.bin",
        "or--g/..x": "unknown tokenizer",
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            spintok.load(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="model_type is 'bert'"):
        load_featurizer("org/bert")
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert spintok.load("org/gated").codebook_size == 7
    assert spintok.load("org/private").codebook_size == 7


def test_a_broken_connection_is_survived(hub: Hub, tiny: dict[str, bytes]) -> None:
    hub.add("org/tiny", tiny)
    # huggingface_hub resumes; it keeps blocks of 10 MB, so here it starts anew.
    hub.broken_after = len(tiny["model.safetensors"]) // 2 + 1
    assert spintok.load("org/tiny").codebook_size == 7
    assert sum(path.startswith("GET") and path.endswith("model.safetensors") for path in hub.asked) == 2


def test_publish_and_load(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = spintok.load(save_tiny(tmp_path / "made"))
    with pytest.raises(ValueError, match="licence"):
        tokenizer.push_to_hub("me/tiny")
    with pytest.raises(DownloadError, match="me/tiny: .*"):
        tokenizer.push_to_hub("me/tiny", licence="mit")
    monkeypatch.setenv("HF_TOKEN", "secret")
    with pytest.raises(ValueError, match="is called ORG/NAME"):
        tokenizer.push_to_hub("tiny", licence="mit")
    address = tokenizer.push_to_hub("me/tiny", licence="mit", description='A "tiny" one')
    assert address.startswith(f"{hub.url}/me/tiny/commit/")
    assert spintok.load("me/tiny").fingerprint == tokenizer.fingerprint
    (tmp_path / "card").mkdir()
    (tmp_path / "card/README.md").write_bytes(hub.repositories["me/tiny"]["main"]["README.md"])
    card = read_card(tmp_path / "card")
    assert (card["license"], card["library_name"]) == ("mit", "spintok")
    loaded = huggingface_hub.ModelCard.load(tmp_path / "card/README.md")
    assert loaded.data.license == "mit"
    assert loaded.data.tags == ["speech", "tokenizer", "discrete-units"]
    assert loaded.data.description == 'A "tiny" one'
    assert "`primary` 7 (dot)" in loaded.text
    assert f"`{tokenizer.fingerprint}`" in loaded.text
    # The command takes the card of the folder, or makes one.
    code, _, error = run(capsys, "push", tmp_path / "made", "me/again")
    assert code == 2
    assert "has no model card (README.md): add --licence" in error
    code, out, error = run(capsys, "push", tmp_path / "made", "me/again", "--licence", "mit", "--private")
    assert code == 0, error
    assert out.strip().startswith(f"{hub.url}/me/again/commit/")
    assert "me/again" in hub.private
    (tmp_path / "made/README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    code, _, error = run(capsys, "push", tmp_path / "made", "me/again", "--licence", "mit")
    assert code == 2
    assert "edit it" in error
    assert run(capsys, "push", tmp_path / "made", "me/again", "--dtype", "float16")[0] == 0
    assert b"# Mine" in hub.repositories["me/again"]["main"]["README.md"]
    # So do those that ship.
    assert run(capsys, "push", "mfcc-kmeans-100", "me/baseline")[0] == 0
    shipped = ROOT / "pretrained/mfcc-kmeans-100/README.md"
    assert hub.repositories["me/baseline"]["main"]["README.md"] == shipped.read_bytes()
    code, _, error = run(capsys, "push", "mfcc-kmeans-100", "me/baseline", "--licence", "mit")
    assert code == 2
    assert "README.md: copy it with spintok save mfcc-kmeans-100 FOLDER, and edit it" in error
    assert spintok.load("me/again").codebook_size == 7


def test_the_command_line_and_the_environment(hub: Hub, tiny: dict[str, bytes], tmp_path: Path) -> None:
    """``HF_ENDPOINT``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` are huggingface_hub's own."""
    hub.add("org/tiny", tiny)
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "no_proxy": "*"}
    command = [sys.executable, "-m", "spintok", "download", "org/tiny@main", "-q"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert folder.is_relative_to(tmp_path / "home")
    assert (folder / "model.safetensors").is_file()
    command[3:] = ["save", "org/tiny@main", str(tmp_path / "copy"), "-q"]
    subprocess.run(command, env={**environment, "HF_HUB_OFFLINE": "1"}, check=True)
    assert spintok.load(tmp_path / "copy").fingerprint == spintok.load(folder).fingerprint
