"""A small run of ``python -m tests.train.random_kills``; its processes fork, so they run outside pytest."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kills_at_random_moments() -> None:
    options = "--kills 3 --stages pretrain kmeans --steps 12 --copies 1 --checkpoint-minutes 0.001"
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.random_kills", *options.split()],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert len(re.findall(r" kills, 0 files differ", done.stdout)) == 2, done.stdout + done.stderr
