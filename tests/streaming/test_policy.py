"""Latencies in frames, and as text."""

import pytest

from spintok.frames import GRID, FrameGrid
from spintok.streaming.policy import Policy, parse_latency


def test_all_of_a_latency_is_the_chunk_or_half_of_it_is_heard_ahead() -> None:
    assert Policy.of(0.32, GRID, looks_ahead=False) == Policy(16, 0)
    assert Policy.of(0.32, GRID, looks_ahead=True) == Policy(8, 8)
    assert Policy.of(0.06, GRID, looks_ahead=True) == Policy(2, 1)
    assert Policy.of(0.06, GRID, looks_ahead=True).seconds == 0.06


@pytest.mark.parametrize("latency", [0, -1, 0.01, 0.05, 31, float("nan"), float("inf")])
def test_impossible_latencies(latency: float) -> None:
    with pytest.raises(ValueError, match=r"multiple of 0\.02"):
        Policy.of(latency, GRID, looks_ahead=False)


def test_one_frame_leaves_nothing_to_hear_ahead() -> None:
    assert Policy.of(0.02, GRID, looks_ahead=False).frames == 1
    with pytest.raises(ValueError, match=r"from 0\.04"):
        Policy.of(0.02, GRID, looks_ahead=True)


@pytest.mark.parametrize("text", ["320ms", "0.32s", "0.32", " 320 ms ", ".32"])
def test_text(text: str) -> None:
    assert parse_latency(text) == pytest.approx(0.32)


@pytest.mark.parametrize("text", ["", "320", "fast", "-1s", "1e3ms", "nan"])
def test_text_that_is_no_latency(text: str) -> None:
    if text == "320":
        assert parse_latency(text) == 320
        return
    with pytest.raises(ValueError, match="320ms"):
        parse_latency(text)


def test_frames_of_another_rate() -> None:
    slow = FrameGrid(640, 800)
    assert Policy.of(0.32, slow, looks_ahead=True) == Policy(4, 4, slow)
    with pytest.raises(ValueError, match=r"multiple of 0\.04"):
        Policy.of(0.06, slow, looks_ahead=False)
