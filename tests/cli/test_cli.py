import json
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
import soundfile
from command_line import run
from spintok.benchmarks.kernels.machine import Ceilings

import spintok
from spintok import cli
from spintok.cli.bench import Name


def test_a_folder_to_a_folder(capsys, speech, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "encode", speech)
    assert (code, err) == (0, "")
    assert "6 files in = 6 files out + 0 failed" in out
    assert "x real time" in out
    assert out.count("\n") == 1
    assert len((tmp_path / "speech-tokens/tokens-00000.jsonl").read_text().splitlines()) == 6
    code, out, _ = run(capsys, "encode", speech, "--quiet")
    assert (code, out) == (0, "")
    code, out, _ = run(capsys, "encode", speech)
    assert "6 files were there already" in out
    assert "entropy bitrate" in run(capsys, "encode", speech, "--stats")[1]


def test_a_log_file_gets_lines_instead_of_a_bar(capsys, speech, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("spintok.cli.progress.LINE_SECONDS", 0.0)
    _, _, err = run(capsys, "encode", speech, tmp_path / "a")
    assert "encoding: 6 of 6 files" in err
    _, _, err = run(capsys, "encode", speech, tmp_path / "b", "--quiet")
    assert err == ""


def test_a_file_goes_to_standard_output(capsys, speech) -> None:
    tokens = spintok.load().encode(speech / "fred_yes.flac")
    path = speech / "fred_yes.flac"
    row = json.loads(run(capsys, "encode", path)[1])
    assert (row["units"], row["duration"]) == (tokens.units.tolist(), tokens.durations.tolist())
    text = run(capsys, "encode", path, "--no-dedup", "--format", "text")[1]
    assert text.split() == [str(code) for code in tokens.codes]


def test_options_reach_the_shards(capsys, speech, tmp_path) -> None:
    code, _, _ = run(
        capsys, "encode", speech, tmp_path / "o", "--no-dedup", "--shard-size", 4, "--workers", 1,
        "--device", "cpu", "--codebook", "all", "--tokenizer", "mfcc-kmeans-100", "--batch-seconds", 20,
    )  # fmt: skip
    assert code == 0
    assert len(list((tmp_path / "o").glob("tokens-*.jsonl"))) == 2
    row = json.loads((tmp_path / "o/tokens-00000.jsonl").read_text().splitlines()[0])
    assert len(row["units"]) == row["num_frames"]
    assert run(capsys, "encode", speech, tmp_path / "km", "--format", "km")[0] == 0
    assert (tmp_path / "km/tokens-00000.km").exists()


def test_ranks_come_from_torchrun(capsys, speech, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(capsys, "encode", speech, tmp_path, "--shard-size", 2)[0] == 0
    assert [p.name for p in tmp_path.glob("tokens-*")] == ["tokens-00001.jsonl"]


def test_failures_make_the_exit_code_1(capsys, tmp_path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/bad.wav").write_text("text")
    soundfile.write(tmp_path / "in/good.wav", np.zeros(999), 16_000)
    code, out, err = run(capsys, "encode", tmp_path / "in", tmp_path / "out")
    assert code == cli.FAILED
    assert "2 files in = 1 files out + 1 failed" in out
    assert "out/failed.jsonl" in err
    err = run(capsys, "encode", tmp_path / "in", tmp_path / "ranks", "--ranks", 2)[2]
    (listed,) = (tmp_path / "ranks").glob("failed*")
    assert str(listed) in err


def test_stats_of_several_folders_add_up(capsys, speech, tmp_path) -> None:
    for name in ("a", "b"):
        run(capsys, "encode", speech, tmp_path / name)
    code, out, _ = run(capsys, "stats", tmp_path / "a", tmp_path / "b", "--json", tmp_path / "s.json")
    assert code == 0
    assert "entropy bitrate" in out
    assert json.loads((tmp_path / "s.json").read_text())["figures"]["utterances"] == 12
    printed = json.loads(run(capsys, "stats", tmp_path / "a", "--json", "-")[1])
    assert printed == json.loads((tmp_path / "a/stats.json").read_text())


def test_list_names_the_default(capsys) -> None:
    code, out, _ = run(capsys, "list")
    assert code == 0
    assert "(default)" in out
    assert "primary 100 codewords" in out


def test_train_makes_a_tokenizer_that_encodes(capsys, speech, tmp_path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        'stage = "kmeans"\nname = "tiny"\nencoder = "mfcc"\n[kmeans]\nsize = 8\niterations = 5\nsample = 500\n'
    )
    code, out, _ = run(capsys, "train", recipe, "--data", speech, "--output", tmp_path / "t")
    assert code == 0
    assert "8 codewords" in out
    assert run(capsys, "encode", speech / "fred_yes.flac", "--tokenizer", tmp_path / "t")[0] == 0


def test_bench_runs_a_benchmark_with_its_own_arguments(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Measuring them takes seconds.
    limits = Ceilings({"float32": 1e11}, 1e10)
    monkeypatch.setattr("spintok.benchmarks.kernels.__main__.ceilings", lambda _: limits)
    sizes = ["--n", "40", "--k", "5", "--d", "16", "--seconds", "0.01"]
    arguments = ["assign", *sizes, "--providers", "spintok", "--device", "cpu", "--out", "results"]
    code, out, _ = run(capsys, "bench", "kernels", *arguments)
    assert code == 0
    assert "N=40 K=5 D=16" in out
    assert any((tmp_path / "results").iterdir())


def test_bench_names_what_a_benchmark_lacks(capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "parselmouth", None)
    monkeypatch.delitem(sys.modules, "spintok.benchmarks.perturb", raising=False)
    code, _, err = run(capsys, "bench", "perturb", "wav/")
    assert code == cli.USAGE
    assert "pip install 'spintok[bench]'" in err


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", get_args(Name))
def test_every_benchmark_can_be_asked_what_it_does(capsys, name) -> None:
    if name == "perturb":
        pytest.importorskip("parselmouth")
        pytest.importorskip("pyworld")
    code, out, _ = run(capsys, "bench", name, "--", "--help")
    assert code == 0
    assert "usage" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "nowhere"], "nowhere: no such file or folder"),
        (["encode", ".", "--tokenizer", "nope"], "unknown tokenizer 'nope'"),
        (["encode", ".", "--codebook", "third"], "unknown codebook 'third'"),
        (["encode", ".", "--format", "zip"], "zip"),
        (["encode", ".", "--workers", "0"], "at least 1"),
        (["encode", ".", "--colour"], "--colour"),
        (["encode"], "Missing argument"),
        (["fly"], "No such command"),
        (["bench", "sleep"], "sleep"),
        (["stats", "."], "not a folder of tokens"),
        (["train", "no.toml", "--data", ".", "--output", "o"], "no such recipe"),
    ],
)
def test_a_users_error_is_one_line(capsys, tmp_path, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.zeros(999), 16_000)
    code, out, err = run(capsys, *arguments)
    assert code == cli.USAGE
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_debug_shows_where_an_error_comes_from(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["spintok", "encode", "nowhere", "--debug"])
    with pytest.raises(ValueError, match="nowhere"):
        cli.main()


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nsys.argv = ['spintok', '--help']\nfrom spintok.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n"
        "    assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "encode" in done.stdout


def test_a_reader_that_leaves_is_no_error(speech) -> None:
    command = f"{sys.executable} -m spintok encode {speech / 'anna_tokens.flac'} | head -c 5"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert len(done.stdout) == 5
    assert done.stderr == ""
