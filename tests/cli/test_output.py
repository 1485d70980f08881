"""Names of files, speakers and tokenizers may hold anything; a terminal only ever shows them."""

import json
import os
import sys

import numpy as np
import pytest
import soundfile
from command_line import call, run
from small_models import save_tiny

from spintok import cli
from spintok.cli.output import printable
from spintok.cli.progress import progress_display

EVIL = "[/nope] [red]\x1b[31m\x07\x9b2J\u202e:smile:"
SHOWN = r"[/nope] [red]\x1b[31m\x07\x9b2J\u202e:smile:"


def shows_plain_text(*texts):
    for text in texts:
        assert "\x1b" not in text
        assert "\x9b" not in text
        assert "\x07" not in text
        assert "\u202e" not in text


@pytest.fixture
def evil(tmp_path):
    """The folder of a tokenizer with that name."""
    folder = save_tiny(tmp_path / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "name": EVIL}))
    return folder


def test_control_characters_are_escaped() -> None:
    assert printable(EVIL) == SHOWN
    assert printable(os.fsdecode(b"caf\xe9 \xff")) == r"caf\xe9 \xff"
    assert printable("plain: é 語 👩\u200d🔬 [x] {y}") == "plain: é 語 👩\u200d🔬 [x] {y}"


def test_a_hostile_name_of_a_tokenizer_is_shown_as_text(capsys, evil, speech, tmp_path) -> None:
    code, out, err = run(capsys, "encode", speech, tmp_path / "tokens", "-t", evil, "--stats")
    assert (code, err) == (0, "")
    assert f"tokenizer {SHOWN}, primary codebook" in out
    for command in (
        ["save", evil, tmp_path / "copy"],
        ["export", tmp_path / "tokens", tmp_path / "out", "--to", "npz"],
        ["report", tmp_path / "tokens", "-o", tmp_path / "[page].html"],
        ["evaluate", evil, "--data", speech, "--metrics", "stats", "-o", tmp_path / "evaluation"],
    ):
        code, out, err = run(capsys, *command)
        assert code == 0, err
        shows_plain_text(out, err)


def test_hostile_names_of_files_and_speakers_are_shown_as_text(capsys, tmp_path) -> None:
    (tmp_path / "in").mkdir()
    name = EVIL.replace("/", "")
    soundfile.write(tmp_path / "in" / f"{name}.wav", 0.1 * np.random.default_rng(0).standard_normal(9999), 16_000)
    (tmp_path / "in" / f"{name}2.wav").write_text("no audio")
    rows = [{"path": f"{name}{end}.wav", "speaker": EVIL + end} for end in ("", "2")]
    (tmp_path / "in/list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = run(capsys, "encode", tmp_path / "in/list.jsonl", tmp_path / "out", "--stats")
    assert code == cli.FAILED
    assert "rate by speaker" in out
    assert "[/nope]" in out
    shows_plain_text(out, err)
    for command in (["encode", tmp_path / "in" / f"{name}2.wav"], ["encode", tmp_path / EVIL], ["stats", EVIL], [EVIL]):
        code, out, err = run(capsys, *command)
        assert (code, err.count("\n")) == (cli.USAGE, 1)
        shows_plain_text(out, err)


@pytest.mark.parametrize("terminal", [False, True])
def test_the_progress_display_shows_any_task_as_text(capsys, monkeypatch, terminal) -> None:
    monkeypatch.setattr("spintok.cli.progress.LINE_SECONDS", 0.0)
    if terminal:
        # With this, rich takes any stream for a terminal.
        monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_display() as display:
        display(EVIL, 1, 2, EVIL)
        display.message(EVIL)
    err = capsys.readouterr().err
    assert "[/nope] [red]\\x1b[31m" in err
    assert "\x1b[31m\x07" not in err
    assert "\x07" not in err


def test_an_ascii_terminal_does_not_end_the_run(capfd, monkeypatch, tmp_path) -> None:
    (tmp_path / "é").mkdir()
    soundfile.write(tmp_path / "é/é.wav", np.zeros(999), 16_000)
    with open(1, "w", encoding="ascii", closefd=False) as out, open(2, "w", encoding="ascii", closefd=False) as err:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        assert call("encode", tmp_path / "é", tmp_path / "ö") == 0
    assert "\\xf6: 1 files in = 1 files out" in capfd.readouterr().out
