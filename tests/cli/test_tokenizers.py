"""The commands that find, fetch and give away tokenizers."""

import json
import re
from pathlib import Path

import pytest
from command_line import run
from file_server import Site, serving
from small_models import save_tiny

import spintok
from spintok import cli
from spintok.hub import registry


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("SPINTOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SPINTOK_REGISTRY", str(tmp_path / "r.toml"))
    monkeypatch.delenv("SPINTOK_OFFLINE", raising=False)
    monkeypatch.setattr("spintok.hub.transport.PAUSES", ())
    (tmp_path / "r.toml").write_text("")


@pytest.fixture
def site():
    with serving(Site()) as site:
        yield site


@pytest.fixture
def far(capsys, site, tmp_path) -> Path:
    """The folder of a tokenizer "far" that is served and registered, by the command that does it."""
    code, out, err = run(
        capsys, "save", save_tiny(tmp_path / "tiny"), tmp_path / "far", "--dtype", "float16", "--name", "far",
        "--url", site.url, "--licence", "CC-BY-4.0", "--description", "Far away",
    )  # fmt: skip
    assert code == 0
    assert "tokenizer far in float16, 0.0" in err
    (tmp_path / "r.toml").write_text(out)
    site.files = {f"/{path.name}": path.read_bytes() for path in (tmp_path / "far").iterdir()}
    return tmp_path / "far"


def test_what_save_gives_away_others_can_load(far, site, tmp_path) -> None:
    loaded = spintok.load("far")
    assert loaded.fingerprint == spintok.load(far).fingerprint
    assert loaded.fingerprint != spintok.load(tmp_path / "tiny").fingerprint
    assert len(site.requests) == 2


def test_save_takes_the_card_along(capsys, tmp_path) -> None:
    # An empty folder is as good as none.
    (tmp_path / "new/copy").mkdir(parents=True)
    code, out, err = run(capsys, "save", registry.DEFAULT, tmp_path / "new/copy", "--quiet")
    assert (code, out, err) == (0, "", "")
    made = sorted(path.name for path in (tmp_path / "new/copy").iterdir())
    assert made == ["README.md", "config.json", "model.safetensors"]
    assert spintok.load(tmp_path / "new/copy").fingerprint == spintok.load().fingerprint
    assert run(capsys, "save", registry.DEFAULT, tmp_path / "u", "--url", "https://example.org")[0] == 0
    assert (tmp_path / "u/config.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["save", "tiny", "tiny"], "tiny: is not an empty folder"),
        (["save", "tiny", "new", "--licence", "MIT"], "add --url"),
        (["save", "tiny", "new", "--url", "https://example.org"], "add --licence"),
        (["save", "tiny", "new", "--url", "ftp://x", "--licence", "a", "--description", "b"], "must begin with https"),
        (["save", "tiny", "new", "--name", "a/b", "--url", "https://x", "--licence", "a", "--description", "b"], "a/b"),
        (["download", "nope"], "unknown tokenizer 'nope': neither ORG/NAME on the Hub nor one of dc-spin-10m-en, "),
        (["download"], "Missing argument"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(capsys, tmp_path, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny(Path("tiny"))
    before = sorted(tmp_path.iterdir())
    code, out, err = run(capsys, *arguments)
    assert (code, out, err.count("\n")) == (cli.USAGE, "", 1)
    assert message in err
    assert sorted(tmp_path.iterdir()) == before


def test_download_fetches_ahead_and_offline_uses_it(capsys, far, site, speech) -> None:
    audio = speech / "fred_yes.flac"
    code, _, err = run(capsys, "encode", audio, "-t", "far", "--offline")
    assert code == cli.USAGE
    assert "run `spintok download far`" in err
    assert site.requests == []
    code, out, err = run(capsys, "download", "far")
    assert code == 0
    assert Path(out.strip()) == registry.known()["far"].folder
    assert "downloading far/model.safetensors, 0.0 MB" in err
    assert run(capsys, "download", "far", registry.DEFAULT)[2] == ""
    site.files = {}
    expected = " ".join(map(str, spintok.load(far).encode(audio).units)) + "\n"
    assert run(capsys, "encode", audio, "-t", "far", "--offline", "--format", "text") == (0, expected, "")


def test_a_terminal_gets_a_bar(capsys, far, monkeypatch) -> None:
    # With this, rich takes any stream for a terminal.
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, _, err = run(capsys, "download", "far")
    assert code == 0
    size = (far / "model.safetensors").stat().st_size / 1000
    assert "far/model.safetensors" in err
    assert f"{size:.1f} kB of {size:.1f} kB" in re.sub(r"\x1b\[[0-9;?]*[a-z]", "", err, flags=re.IGNORECASE)
    # The cursor is back, and what is there already draws nothing.
    assert err.rstrip().endswith("\x1b[?25h")
    assert run(capsys, "download", "far")[2] == ""


def test_the_download_command_is_not_held_by_the_environment(capsys, far, monkeypatch) -> None:
    monkeypatch.setenv("SPINTOK_OFFLINE", "1")
    code, _, err = run(capsys, "download", "far", "--quiet")
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["encode", "{speech}", "out", "-t", "far"],
        ["encode", "{speech}", "out", "-t", "far", "--features", "1"],
        ["evaluate", "far", "--data", "{speech}"],
        ["evaluate", "mfcc-kmeans-100", "--against", "far", "--data", "{speech}"],
        ["report", "{speech}/fred_yes.flac", "-t", "far"],
        ["export", "out", "--to", "hf-tokenizer", "--base", ".", "-t", "far"],
        ["save", "far", "out"],
        ["train", "kmeans.toml", "--data", "{speech}", "--output", "out"],
        ["train", "kmeans.toml", "--data", "{speech}", "--output", "out", "--init", "far"],
        ["train", "pretrain.toml", "--data", "{speech}", "--output", "out"],
        ["train", "spin.toml", "--data", "{speech}", "--output", "out"],
    ],
)
def test_offline_holds_for_every_command_that_takes_a_tokenizer(
    capsys, far, site, speech, tmp_path, monkeypatch, arguments
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("kmeans.toml").write_text('stage = "kmeans"\nname = "k"\nencoder = "far"\nlayer = 1\n[kmeans]\nsize = 4\n')
    Path("pretrain.toml").write_text('stage = "pretrain"\nname = "p"\nlabels = "far"\n[encoder]\nlayers = 1\n')
    Path("spin.toml").write_text(
        'stage = "spin"\nname = "s"\nstart = "x"\n[labels]\ntokenizer = "far"\n[[codebooks]]\nname = "p"\nsize = 4\n'
    )
    code, out, err = run(capsys, *[part.format(speech=speech) for part in arguments], "--offline")
    assert (code, out) == (cli.USAGE, "")
    assert "tokenizer 'far' is not complete in the cache, and --offline" in err
    assert site.requests == []


def test_offline_refuses_what_other_libraries_download(capsys, speech, tmp_path) -> None:
    recipe = tmp_path / "k.toml"
    recipe.write_text(
        'stage = "kmeans"\nname = "k"\nencoder = "torchaudio:HUBERT_BASE"\nlayer = 1\n[kmeans]\nsize = 4\n'
    )
    command = ["train", recipe, "--data", speech, "--output", tmp_path / "out"]
    code, _, err = run(capsys, *command, "--offline")
    assert code == cli.USAGE
    assert "torchaudio:HUBERT_BASE is downloaded by torchaudio, which --offline cannot prevent" in err
    command = ["export", tmp_path / "out", "--to", "hf-tokenizer", "--base", "some/model", "-t", registry.DEFAULT]
    code, _, err = run(capsys, *command, "--offline")
    assert code == cli.USAGE
    assert "some/model: no tokenizer that transformers can load" in err
    assert err.count("\n") == 1


def test_training_starts_from_a_downloaded_encoder(capsys, far, speech, tmp_path) -> None:
    recipe = tmp_path / "k.toml"
    recipe.write_text(
        'stage = "kmeans"\nname = "k"\nencoder = "far"\nlayer = 1\n[kmeans]\nsize = 4\niterations = 2\nsample = 99\n'
    )
    code, _, err = run(capsys, "train", recipe, "--data", speech, "--output", tmp_path / "out")
    assert code == 0
    assert "downloading far/config.json" in err


def test_a_network_that_is_missing_is_one_line(capsys, far, tmp_path, site) -> None:
    text = (tmp_path / "r.toml").read_text().replace(site.url, "http://127.0.0.1:9")
    (tmp_path / "r.toml").write_text(text)
    code, out, err = run(capsys, "encode", ".", "-t", "far")
    assert (code, out) == (cli.USAGE, "")
    assert "http://127.0.0.1:9/config.json: Connection refused" in err
    assert f"by hand: {registry.known()['far'].folder / 'config.json'}" in err
    assert err.splitlines()[-1].startswith("spintok: error: tokenizer 'far'")


def test_list_shows_what_there_is(capsys, far) -> None:
    code, out, _ = run(capsys, "list")
    assert code == 0
    assert f"{registry.DEFAULT} (default): " in out
    assert re.search(r"^mfcc-kmeans-100.*: primary 100 codewords; mit; 0.02 MB; shipped$", out, re.MULTILINE)
    assert "far: primary 7 codewords; CC-BY-4.0; 0.02 MB; to download\n    Far away\n" in out
    run(capsys, "download", "far")
    assert "0.02 MB; cached\n" in run(capsys, "list")[1]
    rows = {row["name"]: row for row in json.loads(run(capsys, "list", "--json")[1])}
    assert rows[registry.DEFAULT]["default"]
    assert rows["far"] == {
        "name": "far",
        "codebooks": {"primary": 7},
        "licence": "CC-BY-4.0",
        "size": sum(path.stat().st_size for path in far.iterdir()),
        "where": "cached",
        "folder": str(registry.known()["far"].folder),
        "description": "Far away",
        "default": False,
    }
