"""A small run of ``python -m tests.train.random_kills``."""

import os

import pytest

from tests.train import random_kills


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kills_at_random_moments(capfd: pytest.CaptureFixture[str]) -> None:
    options = "--kills 3 --stages pretrain kmeans --steps 12 --copies 1 --checkpoint-minutes 0.001"
    random_kills.main(options.split())
    assert capfd.readouterr().out.count(" kills, 0 files differ") == 2
