"""Encoding ends at random moments and at chosen operations: nothing is lost, doubled or different.

The processes of these tests fork, so they run outside pytest.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_kills_at_random_moments() -> None:
    small = ("--kills", "3", "--files", "20", "--seconds", "2", "--shard-size", "12")
    assert run("tests.corpus.random_kills", *small).count(" 0 files differ") == 5


def test_crashes_at_file_operations() -> None:
    assert run("tests.corpus.crash_points", "--every", "12", "jsonl", "safetensors").count(", 0 wrong") == 2
