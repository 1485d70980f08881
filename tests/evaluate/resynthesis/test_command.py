"""The command, with an untrained decoder, which hums."""

import json
from pathlib import Path

import pytest
from judged import needs_judges, one_window
from small_decoders import untrained_decoder
from typer.testing import CliRunner
from voices import SPEECH, mfcc_tokenizer

from spintok.cli.app import app


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer, its decoder, and a manifest with a text."""
    tokenizer = mfcc_tokenizer(20)
    tokenizer.save(tmp_path / "tokenizer")
    untrained_decoder(tokenizer, "primary").save(tmp_path / "hum", dtype="float32")
    row = {"id": "yes", "path": str(one_window(tmp_path)), "speaker": "fred", "text": "Yes."}
    (tmp_path / "dev.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return tmp_path


@needs_judges
def test_a_manifest_with_texts(folder: Path) -> None:
    shown = run(
        folder / "tokenizer", "--data", folder / "dev.jsonl", "--metrics", "resynthesis", "--decoder", folder / "hum",
        "--target", SPEECH / "eve_bus.flac", "--utterances", "1", "--output", folder / "out",
    )  # fmt: skip
    report = json.loads((folder / "out/evaluation.json").read_text(encoding="utf-8"))
    found = report["tokenizers"][0]["metrics"]["resynthesis"]
    assert found["figures"]["wer_of_recording"]["value"] == 0
    assert found["figures"]["wer"]["value"] > 0
    assert found["figures"]["voicing_error"]["value"] > 0
    assert "recording_to_target" in found["figures"]
    assert found["details"]["heard"]["yes"]["recording"] == "yes"
    assert report["settings"]["resynthesis_utterances"] == 1
    assert "WER of the recordings, %" in shown


@needs_judges
def test_what_does_not_fit_is_refused(folder: Path) -> None:
    mfcc_tokenizer(30).save(folder / "other")
    options = ["--data", folder / "dev.jsonl", "--metrics", "resynthesis"]
    with pytest.raises(ValueError, match="no decoder of its codebook 'primary'; name one with --decoder"):
        run(folder / "tokenizer", *options)
    with pytest.raises(ValueError, match="decoder 'hum-primary' speaks tokens of mfcc-20-0 .* none of the tokenizers"):
        run(folder / "other", "--decoder", folder / "hum", *options)
