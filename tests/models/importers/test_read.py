"""Reading checkpoint files: nothing in them runs, and errors are one line."""

import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from spintok.models.importers import CheckpointError, load_encoder
from spintok.models.importers.read import plain, read_checkpoint


class Runs:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("function", [os.system, subprocess.check_call, eval])
def test_nothing_runs(function: Any, legacy: bool, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()" if function is eval else f"touch {marker}"
    evil = Runs(function, ["touch", str(marker)] if function is subprocess.check_call else code)
    path = tmp_path / "evil.pt"
    torch.save({"weight": torch.ones(2), "evil": evil}, path, _use_new_zipfile_serialization=not legacy)
    try:
        values = read_checkpoint(path)
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert torch.equal(values["weight"], torch.ones(2))
        assert plain(values["evil"]) is not None
    assert not marker.exists()
    # The file is indeed harmful: an ordinary load runs it.
    with path.open("rb"):
        torch.load(path, weights_only=False)
    assert marker.exists()


def refused(path: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_encoder(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_bad_files(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pt"
    torch.save({"weight": torch.ones(1_000)}, whole)
    for name, content, message in [
        ("text.pt", b"hello, I am not a checkpoint", "damaged or not a checkpoint|without running"),
        ("empty.pt", b"", "damaged or not a checkpoint|without running"),
        ("cut.pt", whole.read_bytes()[:2_000], "damaged or not a checkpoint|without running"),
        ("audio.pt", b"RIFF\x00\x00\x00\x00WAVEfmt ", "damaged or not a checkpoint|without running"),
        ("cut.safetensors", b"\x80\x00\x00\x00\x00\x00\x00\x00{", "not a complete safetensors file"),
        ("pickle.pt", pickle.dumps({"a": 1}), "damaged or not a checkpoint|without running"),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        refused(path, message)
    refused(whole, "not a checkpoint of torchaudio, fairseq, s3prl, Spin or SpidR; it holds weight")
    torch.save([1, 2], whole)
    refused(whole, "it holds a list")
    refused(tmp_path / "missing.pt", "no such file or folder")
    refused(tmp_path, "no config.json")
