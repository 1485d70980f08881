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
from spintok.decoder import load_decoder
from spintok.evaluate.metric import Result
from spintok.train.recipe_file import read_recipe

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
    names = ("dc-spin-10m-en, 100", "dc-spin-10m-en, 500", "K-means of its encoder, 100", "K-means on MFCC, 100")
    rows = [row for row in recipe.ROWS if row.name in names]
    noise = np.random.default_rng(0).normal(0, 5, 200)
    results = []
    for wer, phones in ((30.0, 20.0), (30.0, 21.0), (35.0, 22.0), (60.0, 40.0)):
        values = {"wer": wer, "phone_errors": phones, "phone_errors_stops": phones}
        # Draws of phones that have nothing to do with those of the others.
        draws = {"wer": noise + wer, "phone_errors_stops": np.random.default_rng(int(phones)).normal(phones, 5, 200)}
        details = {"phones": {"recording": {"T": {"count": 20}, "S": {"count": 19}}}}
        results.append(Result(values, {name: draw.tolist() for name, draw in draws.items()}, "9 speakers", details))
    lines = recipe.differences(rows, results)
    assert lines[::2] == [
        "* WER of dc-spin-10m-en, 500, minus that of dc-spin-10m-en, 100: +0.0 [+0.0, +0.0]",
        "* WER of K-means of its encoder, 100, minus that of dc-spin-10m-en, 100: **+5.0 [+5.0, +5.0]**",
        "* WER of K-means on MFCC, 100, minus that of dc-spin-10m-en, 100: **+30.0 [+30.0, +30.0]**",
    ]
    assert lines[1].startswith("    * phones: +1.0; stops +1.0 [-")
    assert lines[5].startswith("    * phones: +20.0; stops **+20.0 [+")


def test_table_of_phones(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = script("recipes/resynthesis.py", monkeypatch)
    row = recipe.ROWS[0]
    names = ["phone_errors", *(f"phone_errors_{name}" for name in recipe.PHONE_CLASSES)]
    values = dict.fromkeys(names, 50.0) | {f"{name}_of_recording": 20.0 for name in names}

    def counts(**wrong: int) -> dict[str, dict[str, int]]:
        return {phone: {"count": 9, "wrong": number} for phone, number in wrong.items()}

    tokens = counts(AA=8, B=5, S=7, T=3) | {"": {"count": 30, "wrong": 30}}
    result = Result(values, details={"phones": {"tokens": tokens, "recording": counts(AA=7, B=1, S=3, T=3)}})
    monkeypatch.setattr(recipe, "WORST", 3)
    assert recipe.phone_table([row], [result]) == []
    monkeypatch.setattr(recipe, "FEWEST", 9)
    head, _, recording, line = recipe.phone_table([row], [result])
    assert head.startswith("| tokens | all phones | vowels | stops | fricatives | most errors")
    assert recording == "| the recordings |" + " 20.0 |" * 4 + " |"
    assert line == f"| {row.name} |" + " 50.0 |" * 4 + " B 5 for 1 of 9, S 7 for 3 of 9, AA 8 for 7 of 9 |"
    assert recipe.phone_table([row], [Result({"dnsmos": 3.0})]) == []


def test_tokenizers_decoders_and_latencies_of_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = script("recipes/resynthesis.py", monkeypatch)
    ran = []
    monkeypatch.setattr(recipe, "run", lambda *command: ran.append(" ".join(map(str, command))))
    for row in recipe.ROWS:
        recipe.make_tokenizer(row, tmp_path)
        recipe.make_decoder(row, tmp_path)
        if row.voice is None:
            assert recipe.decoder_of(row, tmp_path).parent == tmp_path / "decoders"
        else:
            # What ships speaks the tokens of the row.
            decoder = load_decoder(row.voice)
            tokenizer = recipe.tokenizer_of(row, tmp_path)
            decoder.check(tokenizer.fingerprint, row.codebook)
            assert decoder.source.size == row.size
            assert row.voice == recipe.decoder_of(row, tmp_path).name
    kinds = [command.split()[1] for command in ran]
    assert kinds.count("voice") == sum(row.voice is None for row in recipe.ROWS)
    assert kinds.count("small_kmeans") == kinds.count("small_4_spin") == 2
    # The recipes take the settings.
    for command in ran:
        _, name, *options = command.split()
        settings = [options[i + 1] for i, option in enumerate(options) if option == "--set"]
        read_recipe(ROOT / f"recipes/{name}.toml", settings)


@needs_judges
def test_the_page_to_listen_to(speech: Path, work: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script("recipes/resynthesis.py", monkeypatch)
    make = script("docs/listen/make.py", monkeypatch)
    monkeypatch.setattr(make, "SAMPLES", {"fred_yes": "Yes."})
    monkeypatch.setattr(make, "SPEAKERS", 1)
    monkeypatch.setattr(make, "ROWS", [row for row in make.ROWS if row.tokenizer == "mfcc-kmeans-100"])
    rows = [json.loads(line) for line in (speech / "dev.jsonl").read_text().splitlines()]
    lines = [json.dumps({**row, "path": str(speech / row["path"])}) for row in rows]
    (work / "dev.jsonl").write_text("\n".join(lines), encoding="utf-8")
    page = tmp_path / "page"
    page.mkdir()
    other = '| another | <audio controls preload="none" src="fred_yes-lost-primary.ogg"></audio> | no |'
    (page / "index.md").write_text(other, encoding="utf-8")
    lost = make.ROWS[0].__class__("another", "lost", "primary", 100)
    monkeypatch.setattr(make, "ROWS", [*make.ROWS, lost])
    values = {f"{name}{suffix}": 40.0 for name in ("wer", "dnsmos") for suffix in ("", "_of_recording")}
    (work / "results").mkdir()
    for name in ("held-out", "dev"):
        make.result_of(make.ROWS[0], name, work, 7).write_text(json.dumps({"values": values}), encoding="utf-8")
    make.make(work, page, 7)
    sounds = ["fred_yes.ogg", "fred_yes-mfcc-kmeans-100-primary.ogg", "speaker-1-mfcc-kmeans-100-primary.ogg"]
    text = (page / "index.md").read_text(encoding="utf-8")
    # What there was of a row without a decoder is kept.
    lines = [*sounds[:2], "fred_yes-lost-primary.ogg", *sounds[2:]]
    assert [part.partition('"')[0] for part in text.split('src="')[1:]] == lines
    assert other in text.splitlines()
    assert "| K-means on MFCC, 100 | 40 | 40 | 40.0 | 40.0 |" in text.splitlines()
    assert '| the recording | <audio controls preload="none" src="fred_yes.ogg"></audio> | yes |' in text
    # The recordings of others are not there.
    assert sorted(path.name for path in page.iterdir()) == sorted([*sounds, "index.md"])
    for name in sounds:
        samples, rate = soundfile.read(page / name)
        assert rate == 16_000
        assert len(samples) > 10_000
        assert (page / name).stat().st_size < 6000
