"""Encoding is killed at random moments: nothing is lost, doubled or different; ``benchmarks.kill_encode`` does more."""

import os
import subprocess
import sys
from pathlib import Path


def test_kills_lose_and_change_nothing() -> None:
    # A process of its own, because it forks.
    command = [sys.executable, "-m", "benchmarks.kill_encode", "--kills", "4", "--files", "40", "--seconds", "4"]
    done = subprocess.run(
        [*command, "--shard-size", "25"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 0 files differ") == 5
