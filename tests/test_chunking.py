import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spintok.chunking import Window, pieces
from spintok.frames import HOP, RECEPTIVE_FIELD, num_frames


@given(
    samples=st.integers(0, 30_000),
    keep=st.integers(1, 20),
    context=st.integers(0, 6),
    block=st.integers(1, 9_000),
)
def test_every_frame_is_kept_once_with_its_own_samples(samples: int, keep: int, context: int, block: int) -> None:
    window = Window(keep, context)
    waveform = torch.arange(samples, dtype=torch.float32)
    kept = []
    for piece in pieces(waveform.split(block) if samples else [], window):
        frames = piece.waveform.unfold(0, RECEPTIVE_FIELD, HOP)[:, 0].tolist()
        assert len(frames) <= window.frames
        assert len(piece.waveform) <= window.samples
        start = piece.skip
        kept += frames[start : start + piece.keep]
        # Context on each side, as far as the recording goes.
        first = int(frames[start]) // HOP
        assert start == min(context, first)
        assert len(frames) - start - piece.keep == min(context, num_frames(samples) - first - piece.keep)
    assert kept == [HOP * i for i in range(num_frames(samples))]


def test_audio_of_one_window_needs_no_cut() -> None:
    window = Window(10, 3)
    assert num_frames(window.samples) == window.frames == num_frames(window.samples + 1) - 1
    with pytest.raises(ValueError, match="at least"):
        Window(0, 3)


@pytest.mark.parametrize("seconds", [0.02, 0.1, 1.0, 14.99, 15.0, 30.0])
def test_a_window_of_so_many_seconds(seconds: float) -> None:
    window = Window.within(seconds)
    assert window.frames == int(seconds * 50 + 1e-9)
    assert 4 * window.context <= window.keep
    assert Window.within(30) == Window()
