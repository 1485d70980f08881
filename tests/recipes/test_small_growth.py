"""The script behind the picture of growth with speech and size."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from scripts import run_script


@pytest.fixture
def growth(tmp_path) -> Path:
    (tmp_path / "growth").mkdir()
    for part, seconds in ((9, 360), (3, 1080), (1, 3600)):
        (tmp_path / f"growth/hours-{part}.jsonl").write_text(json.dumps({"num_samples": 16_000 * seconds}) + "\n")
    runs = {"hours-9": 0.30, "hours-3": 0.35, "hours-1": 0.41, "size-4x128": 0.2, "size-6x192": 0.3, "size-8x256": 0.4}
    for name, pnmi in (runs | {"phones-long": 0.45}).items():
        folder = tmp_path / "growth" / name / "training"
        folder.mkdir(parents=True)
        (folder / "checks.csv").write_text(f"step,ued_pooled_speaker,pnmi\n500,60.0,0.1\n1000,45.25,{pnmi}\n")
        weights = {"encoder.a": torch.zeros(2000, 1000), "codebooks.primary.codewords": torch.zeros(9, 9)}
        save_file(weights, tmp_path / "growth" / name / "model.safetensors")
    return tmp_path


def run(*arguments: object) -> str:
    return run_script("recipes/small_growth.py", *arguments)


def test_rows_hold_hours_weights_and_the_last_check(growth) -> None:
    rows = [line for line in run(growth).splitlines() if "`" in line]
    assert len(rows) == 6
    assert rows[0] == "| `hours-9` | 0.1 | 2.0 | 0.300 | 45.2 |"
    assert rows[5] == "| `size-8x256` | 1.0 | 2.0 | 0.400 | 45.2 |"


def test_the_curves_are_drawn(growth) -> None:
    pytest.importorskip("matplotlib")
    run(growth, "--plot", growth / "g.svg")
    picture = (growth / "g.svg").read_text()
    assert ">hours of aligned speech<" in picture
    assert ">parameters of the encoder, millions<" in picture
    assert ">updates of phones-long<" in picture
