"""What the command line says about itself."""

import pytest
import typer
from command_line import run

import spintok
from spintok import cli
from spintok.cli.app import app

COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command_is_explained(name) -> None:
    for parameter in COMMANDS[name].params:
        assert parameter.help, f"{name} {parameter.name} has no help"
        assert len(parameter.help.split()) >= 3, f"{name} {parameter.name}: {parameter.help}"
        assert not parameter.help.startswith(("Of ", "For ")), f"{name} {parameter.name}: {parameter.help}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example(name) -> None:
    assert f"spintok {name} " in COMMANDS[name].epilog or f"-m spintok {name}" in COMMANDS[name].epilog


def test_help_flows_and_keeps_its_brackets(capsys, monkeypatch) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 300)
    text = run(capsys, "serve", "--help")[1]
    assert "pip install 'spintok[serve]'." in text
    assert "ORG/NAME[@REVISION] on the Hub." in text
    # Lines of the source are no lines of the page.
    assert "it does what is missing. Files that cannot be read are" in run(capsys, "encode", "-h")[1]


def test_the_version_is_printed(capsys) -> None:
    assert run(capsys, "--version") == (0, f"spintok {spintok.__version__}\n", "")


def test_the_shell_completes_commands_and_names_of_tokenizers(capsys, monkeypatch) -> None:
    monkeypatch.setenv("_SPINTOK_COMPLETE", "complete_zsh")

    def complete(*words: str) -> str:
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"spintok {' '.join(words)}")
        return run(capsys)[1]

    assert "encode" in complete("enc")
    assert spintok.load().name in complete("encode", "--tokenizer", "")
    assert "tiny_3_dc_spin" in complete("train", "tiny_3")


def test_the_environment_sets_the_default_tokenizer_and_device(capsys, speech, tmp_path, monkeypatch) -> None:
    audio = speech / "fred_yes.flac"
    monkeypatch.setenv("SPINTOK_TOKENIZER", "nobody")
    assert "unknown tokenizer 'nobody'" in run(capsys, "encode", audio)[2]
    named = run(capsys, "encode", audio, "-t", "mfcc-kmeans-100")
    assert named[0] == 0
    monkeypatch.setenv("SPINTOK_TOKENIZER", "mfcc-kmeans-100")
    assert run(capsys, "encode", audio) == named
    # Commands that read token folders do not take the default for an argument of theirs.
    assert run(capsys, "encode", speech, tmp_path / "tokens")[0] == 0
    assert run(capsys, "report", tmp_path / "tokens", "-o", tmp_path / "r.html")[0] == 0
    monkeypatch.setenv("SPINTOK_DEVICE", "toaster")
    code, _, err = run(capsys, "encode", audio)
    assert (code, err.count("\n")) == (cli.USAGE, 1)
    assert "toaster" in err


@pytest.mark.parametrize("twice", [["-t", "a", "-t", "b"], ["--workers", "1", "--workers", "2"]])
def test_an_option_that_takes_one_value_is_refused_twice(capsys, speech, twice) -> None:
    code, out, err = run(capsys, "encode", speech, *twice)
    assert (code, out) == (cli.USAGE, "")
    assert "is given 2 times" in err
