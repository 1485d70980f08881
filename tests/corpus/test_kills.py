"""Encoding ends at random moments and at chosen operations: nothing is lost, doubled or different."""

import pytest

from tests.corpus import crash_points, random_kills


def test_kills_at_random_moments(capfd: pytest.CaptureFixture[str]) -> None:
    small = ["--kills", "3", "--files", "12", "--seconds", "2", "--long", "42", "--shard-size", "8"]
    # However slow the machine is.
    assert random_kills.main([*small, "--at-most", "inf"]) == 0
    assert capfd.readouterr().out.count(" 0 files differ") == 5


def test_crashes_at_file_operations(capfd: pytest.CaptureFixture[str]) -> None:
    assert crash_points.main(["--every", "30", "jsonl", "safetensors", "features-parquet"]) == 0
    assert capfd.readouterr().out.count(", 0 wrong") == 3
