"""The scripts behind the table of resynthesis and the page to listen to, with an untrained decoder."""

import importlib.util
import json
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from judged import needs_judges, one_window
from small_decoders import untrained_decoder

import spintok
from spintok.evaluate.metric import Result

ROOT = Path(__file__).parents[2]


def script(path: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script as a module, under its own name."""
    monkeypatch.syspath_prepend(ROOT / "recipes")
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look for their module.
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """Training speech of a voice and of another one, and two speakers to develop on."""
    folder = tmp_path / "speech"
    folder.mkdir()
    length = soundfile.info(one_window(folder)).frames
    for name, speakers in (("train", ["kathleen"] * 20 + ["other"]), ("dev", ["a", "b"])):
        rows = [
            {"id": f"{name}-{i}", "path": "yes.flac", "speaker": one, "source": "tests", "text": "Yes.",
             "num_samples": length}
            for i, one in enumerate(speakers)
        ]  # fmt: skip
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder of results with an untrained decoder of `mfcc-kmeans-100`."""
    tokenizer = spintok.load("mfcc-kmeans-100")
    untrained_decoder(tokenizer, "primary").save(tmp_path / "work/decoders/mfcc-kmeans-100-primary")
    return tmp_path / "work"


@needs_judges
def test_a_row(speech: Path, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = script("recipes/resynthesis.py", monkeypatch)
    number = next(i for i, row in enumerate(recipe.ROWS) if row.tokenizer == "mfcc-kmeans-100")
    options = [str(speech), str(work), "--rows", str(number), "--utterances", "1"]
    monkeypatch.setattr(sys, "argv", ["resynthesis.py", *options])
    for _ in range(2):
        # The second run reads what the first one kept.
        recipe.main()
        shown = capsys.readouterr().out
        assert "## Held-out utterances of the voice (1 utterances of one speaker, too few for intervals" in shown
        assert "## Other speakers (1 " in shown
        lines = [line for line in shown.splitlines() if line.startswith("| ")]
        names = [line.split("|")[1].strip() for line in lines[:3]]
        assert names == ["tokens", "the recordings", "K-means on MFCC, 100"]
        assert lines[1].split("|")[2].strip() == "0.0"
    assert len(list((work / "results").iterdir())) == 2
    keys = {}
    for name in ("voice", "held-out", "target"):
        keys[name] = {json.loads(line)["id"] for line in (work / f"{name}.jsonl").read_text().splitlines()}
    assert keys["voice"] == keys["held-out"] | keys["target"]
    assert not keys["held-out"] & keys["target"]
    # The same that recipes/voice.toml holds out.
    assert tomllib.loads((ROOT / "recipes/voice.toml").read_text(encoding="utf-8"))["hold_out"] == recipe.HOLD_OUT


def test_differences_are_paired(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = script("recipes/resynthesis.py", monkeypatch)
    rows = [row for row in recipe.ROWS if row.size == 100]
    noise = np.random.default_rng(0).normal(0, 5, 200)
    results = [Result({"wer": value}, {"wer": (noise + value).tolist()}, "9 speakers") for value in (30.0, 35.0, 60.0)]
    assert recipe.differences(rows, results) == [
        "* WER of K-means of its encoder, 100, minus that of dc-spin-10m-en, 100: +5.0 [+5.0, +5.0]",
        "* WER of K-means on MFCC, 100, minus that of dc-spin-10m-en, 100: +30.0 [+30.0, +30.0]",
    ]


@needs_judges
def test_the_page_to_listen_to(speech: Path, work: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script("recipes/resynthesis.py", monkeypatch)
    make = script("docs/listen/make.py", monkeypatch)
    monkeypatch.setattr(make, "SAMPLES", {"fred_yes": "Yes."})
    monkeypatch.setattr(make, "SPEAKERS", 1)
    rows = [json.loads(line) for line in (speech / "dev.jsonl").read_text().splitlines()]
    lines = [json.dumps({**row, "path": str(speech / row["path"])}) for row in rows]
    (work / "dev.jsonl").write_text("\n".join(lines), encoding="utf-8")
    page = tmp_path / "page"
    page.mkdir()
    make.make(work, page)
    sounds = ["fred_yes.ogg", "fred_yes-mfcc-kmeans-100-primary.ogg", "speaker-1-mfcc-kmeans-100-primary.ogg"]
    text = (page / "index.md").read_text(encoding="utf-8")
    assert [part.partition('"')[0] for part in text.split('src="')[1:]] == sounds
    assert '| the recording | <audio controls preload="none" src="fred_yes.ogg"></audio> | yes |' in text
    # The recordings of others are not there.
    assert sorted(path.name for path in page.iterdir()) == sorted([*sounds, "index.md"])
    for name in sounds:
        samples, rate = soundfile.read(page / name)
        assert rate == 16_000
        assert len(samples) > 10_000
        assert (page / name).stat().st_size < 6000
