"""What ``spintok encode`` takes as its source, and what it refuses."""

import json
import os
import re
import threading

import numpy as np
import pytest
import soundfile
from command_line import run
from forks import ended, start

from spintok import cli


def test_standard_input_is_encoded_to_standard_output(capsys, speech, standard_input) -> None:
    audio = speech / "fred_yes.flac"
    standard_input(audio.read_bytes())
    code, out, err = run(capsys, "encode", "-")
    assert (code, err) == (0, "")
    assert out == run(capsys, "encode", audio)[1]


def test_a_pipe_is_read_once_and_names_no_folder(capsys, speech, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    audio = speech / "fred_yes.flac"
    expected = run(capsys, "encode", audio)
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(audio.read_bytes()))
    writer.start()
    assert run(capsys, "encode", tmp_path / "pipe") == expected
    writer.join()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize("more", [["out"], ["--features", "0"]])
def test_standard_input_goes_to_no_folder(capsys, tmp_path, monkeypatch, more) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "encode", "-", *more)
    assert (code, out, err.count("\n")) == (cli.USAGE, "", 1)
    assert list(tmp_path.iterdir()) == []


def test_a_second_file_is_not_taken_for_the_output_folder(capsys, speech) -> None:
    code, _, err = run(capsys, "encode", speech / "fred_yes.flac", speech / "eve_bus.flac")
    assert (code, err.count("\n")) == (cli.USAGE, 1)
    assert "eve_bus.flac: is a file, but the second argument is the folder to write" in err


def test_a_long_file_shows_its_progress_in_time_of_audio(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("spintok.cli.progress.LINE_SECONDS", 0.0)
    soundfile.write(tmp_path / "long.wav", 0.1 * np.random.default_rng(0).standard_normal(80 * 8000), 8000)
    command = ("encode", tmp_path / "long.wav", "-t", "mfcc-kmeans-100")
    code, out, err = run(capsys, *command)
    assert code == 0
    times = re.findall(r"encoding: (\d:\d\d:\d\d) of 0:01:20 of audio, \d+ x real time", err)
    assert len(times) >= 4
    assert times == sorted(set(times))
    assert times[-1] == "0:01:20"
    assert run(capsys, *command, "--quiet") == (0, out, "")


@pytest.mark.parametrize("source", ["", "/dev/null"])
def test_an_empty_source_is_refused(capsys, source, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.zeros(999), 16_000)
    code, out, err = run(capsys, "encode", source)
    assert (code, out, err.count("\n")) == (cli.USAGE, "", 1)
    assert "empty" in err
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_a_tail_of_some_milliseconds_that_is_missing_is_a_warning_in_one_line(speech, tmp_path) -> None:
    samples, rate = soundfile.read(speech / "fred_yes.flac")
    soundfile.write(tmp_path / "a.wav", samples, rate)
    data = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(data[:-100])
    # In a process of its own: in this one warnings are errors.
    assert ended(start(tmp_path / "outputs", "encode", tmp_path / "a.wav")) == 0
    assert re.fullmatch(
        r"spintok: warning: \S+a\.wav: the last 3\.1 ms are missing: .* bytes of samples\n",
        (tmp_path / "outputs/stderr").read_text(),
    )


def test_a_subfolder_that_cannot_be_read_is_listed_and_makes_the_exit_code_1(capsys, tmp_path, monkeypatch) -> None:
    (tmp_path / "in/closed").mkdir(parents=True)
    soundfile.write(tmp_path / "in/a.wav", np.zeros(999), 16_000)
    real = os.scandir

    def scandir(path="."):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    code, out, _ = run(capsys, "encode", tmp_path / "in", tmp_path / "out")
    assert code == cli.FAILED
    assert "2 files in = 1 files out + 1 failed" in out
    (failed,) = map(json.loads, (tmp_path / "out/failed.jsonl").read_text().splitlines())
    assert failed["error"].endswith("closed: Permission denied")
