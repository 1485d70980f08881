"""Published tokenizers, put together from files in the forms in which their libraries write them."""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run
from file_server import Site, serving

import spintok
from spintok.hub import catalogue, registry
from spintok.hub.download import DownloadError
from spintok.hub.huggingface import parse_repository

reference = pytest.importorskip("reference_checkpoints", reason="needs s3prl", exc_type=ImportError)
joblib = pytest.importorskip("joblib")
cluster = pytest.importorskip("sklearn.cluster")

SPEECH = torch.randn(16_000, generator=torch.Generator().manual_seed(0)) * 0.1


def stored(write: Any, value: Any) -> bytes:
    file = io.BytesIO()
    write(value, file)
    return file.getvalue()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    """A catalogue of two tokenizers whose files a server on this machine has."""
    model, settings = reference.hubert()
    values = {"model": model.state_dict(), "cfg": {"model": settings, "task": {"normalize": False}}, "args": None}
    features = reference.fairseq_features(model, SPEECH)[2].detach().numpy()
    kmeans = cluster.KMeans(9, n_init=1, random_state=0).fit(features)
    np.save(tmp_path / "expected.npy", kmeans.predict(features))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("SPINTOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPINTOK_OFFLINE", raising=False)
    monkeypatch.setattr("spintok.hub.transport.PAUSES", ())
    files = {"/model.pt": stored(torch.save, values), "/km.bin": stored(joblib.dump, kmeans)}
    files["/spin.ckpt"] = stored(
        torch.save, reference.spin_checkpoint(reference.wavlm(max_distance=800, num_buckets=320)[0])
    )
    with serving(Site(files)) as server:
        sha256 = hashlib.sha256(files["/km.bin"]).hexdigest()
        common = 'frame_rate = 50\nnormalised = false\nlicence = "MIT"\nsource = "a document"\ndescription = "far"\n'
        text = f"""
[files]
"model.pt" = {{ url = "{server.url}/model.pt" }}
"km.bin" = {{ url = "{server.url}/km.bin", sha256 = "{sha256}" }}
"spin.ckpt" = {{ url = "{server.url}/spin.ckpt", size = {len(files["/spin.ckpt"])} }}
[tokenizers.far-9]
encoder = "model.pt"
centroids = "km.bin"
layer = 2
size = 9
{common}
[tokenizers.far-spin]
checkpoint = "spin.ckpt"
layer = 2
size = 20
{common}
[tokenizers.far-wrong]
checkpoint = "spin.ckpt"
layer = 2
size = 21
{common}
"""
        (tmp_path / "catalogue.toml").write_text(text)
        found = catalogue.catalogue(tmp_path / "catalogue.toml")
        for place in ("spintok.hub.catalogue.catalogue", "spintok.loading.catalogue"):
            monkeypatch.setattr(place, lambda: found)
        yield server


def test_a_published_tokenizer_is_put_together_once(site: Site, tmp_path: Path) -> None:
    tokenizer = spintok.load("far-9")
    assert (tokenizer.name, tokenizer.layer, tokenizer.codebook_size) == ("far-9", 2, 9)
    np.testing.assert_array_equal(tokenizer.encode(SPEECH, 16_000).codes, np.load(tmp_path / "expected.npy"))
    asked = len(site.requests)
    assert spintok.load("far-9", offline=True).fingerprint == tokenizer.fingerprint
    assert len(site.requests) == asked
    assert spintok.load("far-spin").codebook_size == 20
    with pytest.raises(ValueError, match="give 20 codewords at 50 frames a second, not 21 at 50"):
        spintok.load("far-wrong")


def test_files_that_cannot_be_downloaded(site: Site, tmp_path: Path) -> None:
    by_hand = rf"by hand: {site.url}/model.pt as {tmp_path}/cache/published/model.pt"
    with pytest.raises(DownloadError, match=f"--offline.*{by_hand}"):
        spintok.load("far-9", offline=True)
    weights = site.files.pop("/model.pt")
    with pytest.raises(DownloadError, match=f"the server has no such file.*{by_hand}") as caught:
        spintok.load("far-9")
    assert "\n" not in str(caught.value)
    # Copied by hand it is as good.
    (tmp_path / "cache/published/model.pt").write_bytes(weights)
    kmeans = site.files["/km.bin"]
    site.files["/km.bin"] = kmeans[:-1] + b"x"
    with pytest.raises(DownloadError, match="wrong checksum: the file.s sha256 is"):
        spintok.load("far-9")
    (tmp_path / "cache/published/km.bin").write_bytes(kmeans[:-1] + b"x")
    with pytest.raises(DownloadError, match="the published file has .*: delete it"):
        spintok.load("far-9")
    (tmp_path / "cache/published/km.bin").write_bytes(kmeans)
    assert spintok.load("far-9").codebook_size == 9


def test_the_commands(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = run(capsys, "info", "far-9")
    assert code == 0, error
    for part in (f"{site.url}/model.pt, no published checksum", "layer       2", "9 codewords, L2", "not normalised"):
        assert part in out
    assert "far-9" not in run(capsys, "list")[1]
    assert "far-9: 9 codewords, 50 Hz; MIT; unverified here; to download" in run(capsys, "list", "--all")[1]
    code, out, error = run(capsys, "download", "far-9", "-q")
    assert code == 0, error
    assert spintok.load(Path(out.strip())).name == "far-9"
    assert "far-9: 9 codewords, 50 Hz; MIT; unverified here; cached" in run(capsys, "list", "--all")[1]
    rows = json.loads(run(capsys, "list", "--all", "--json")[1])
    assert [row["parts"] for row in rows if row["name"] == "far-9"] == [[f"{site.url}/model.pt", f"{site.url}/km.bin"]]
    code, out, error = run(capsys, "save", "far-9", tmp_path / "copy", "-q")
    assert code == 0, error
    code, out, _ = run(capsys, "info", tmp_path / "copy")
    assert (code, "layer       2 of 2" in out) == (0, True)


def test_the_catalogue_that_ships() -> None:
    found = catalogue.catalogue()
    assert {"hubert-base-gslm-50", "mhubert-25hz-500", "spin-hubert-128", "spin-wavlm-2048", "seamless-10000"} <= set(
        found
    )
    assert not set(found) & set(registry.known())
    for one in found.values():
        assert one.source.startswith("https://")
        assert one.licence
        for part in one.parts:
            assert part.url.startswith("https://")
            assert part.sha256 is None or len(part.sha256) == 64
        assert one.name.endswith(f"-{one.size}")
    for encoder in catalogue.encoders().values():
        assert parse_repository(encoder.name)
        assert encoder.name not in found
        assert 0 < encoder.layer <= encoder.layers
        assert encoder.source.startswith("https://")


def test_encoders_without_a_codebook(capsys: pytest.CaptureFixture[str]) -> None:
    name = "facebook/w2v-bert-2.0"
    assert f"{name}: no codebook, 50 Hz; MIT; unverified here; an encoder" in run(capsys, "list", "--all")[1]
    assert name not in run(capsys, "list")[1]
    assert name in [row["name"] for row in json.loads(run(capsys, "list", "--all", "--json")[1])]
    code, out, error = run(capsys, "info", name)
    assert code == 0, error
    for part in ("24 layers", "17 in published work", f"spintok import {name} FOLDER", "log-mel bands", "50 a second"):
        assert part in out


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[files]\n[tokenizers.x]\nlayer = 1\n",
        "[files]\n[tokenizers.x]\ncheckpoint = 'nowhere'\n",
        "[files]\nx = { address = 'y' }\n[tokenizers]\n",
        "[files]\n[tokenizers]\n[encoders.x]\nlayer = 1\n",
    ],
)
def test_damaged_catalogues(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ValueError, match=r"c\.toml: not a catalogue"):
        catalogue.catalogue(tmp_path / "c.toml")
