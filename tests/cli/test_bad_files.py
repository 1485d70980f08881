"""One bad file is listed with its cause, and never ends the run over the others."""

import json
import os

import numpy as np
import pytest
import soundfile
from command_line import run

from spintok import cli

SECOND = 0.1 * np.random.default_rng(0).standard_normal(16_000)


@pytest.fixture
def speech_with_bad_files(tmp_path):
    """A manifest of a good file, one whose name is not UTF-8, and nine bad ones."""
    folder = tmp_path / "in"
    folder.mkdir()
    soundfile.write(folder / "good.wav", SECOND, 16_000)
    soundfile.write(os.fsencode(folder) + b"/caf\xe9.wav", SECOND, 16_000)
    soundfile.write(folder / "huge.wav", np.where(SECOND > 0.3, 1e19, SECOND), 16_000, subtype="FLOAT")
    soundfile.write(folder / "nan.wav", np.where(SECOND > 0.3, np.nan, SECOND), 16_000, subtype="FLOAT")
    soundfile.write(folder / "fast.wav", SECOND, 400_000_000)
    soundfile.write(folder / "slow.wav", SECOND, 1)
    soundfile.write(folder / "cut.rf64", SECOND, 16_000, format="RF64")
    os.truncate(folder / "cut.rf64", 20_000)
    (folder / "header.rf64").write_bytes((folder / "cut.rf64").read_bytes()[:60])
    (folder / "empty.flac").touch()
    os.mkfifo(folder / "pipe.wav")
    paths = [*sorted(os.listdir(folder)), "nul\0.wav", "missing.wav", "x" * 5000]  # noqa: PTH208
    rows = [json.dumps({"id": f"u{number:02d}", "path": path}) for number, path in enumerate(paths)]
    (folder / "list.jsonl").write_text("\n".join(rows) + "\n")
    return folder / "list.jsonl", len(paths)


@pytest.mark.parametrize(
    "options", [["--format", "jsonl"], ["--format", "km"], ["--format", "parquet"], ["--features", "0"]], ids="-".join
)
def test_bad_files_are_listed_and_the_others_encoded(capsys, tmp_path, speech_with_bad_files, options) -> None:
    source, total = speech_with_bad_files
    command = ("encode", source, tmp_path / "out", "-t", "mfcc-kmeans-100", *options)
    for _ in range(2):
        code, out, err = run(capsys, *command)
        assert code == cli.FAILED
        assert f"{total} files in = " in out
        assert "failed.jsonl lists them with the causes" in err
        failed = [json.loads(line) for line in (tmp_path / "out/failed.jsonl").read_text().splitlines()]
        # The name that is not UTF-8 is a failure only where the format cannot hold it.
        assert len(failed) in (total - 2, total - 1)
        assert all(row["error"] and "\n" not in row["error"] for row in failed)
        assert not any(row["file_name"].endswith("good.wav") for row in failed)
    causes = " ".join(row["error"] for row in failed)
    for cause in (
        "samples reach 1e+19", "NaN", "400000000 Hz", "1 Hz", "cut short", "0 bytes", "pipe or a device", "null",
        "no such file", "too long",
    ):  # fmt: skip
        assert cause in causes
