import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spintok.chunking import Window, chunks
from spintok.frames import GRID, FrameGrid, num_frames


@settings(deadline=None)
@given(
    samples=st.integers(0, 30_000),
    keep=st.integers(1, 20),
    context=st.integers(0, 6),
    block=st.integers(1, 9_000),
    grid=st.sampled_from([GRID, FrameGrid(640, 720), FrameGrid(160, 160), FrameGrid(320, 560)]),
)
def test_every_frame_is_kept_once_with_its_own_samples(
    samples: int, keep: int, context: int, block: int, grid: FrameGrid
) -> None:
    window = Window(keep, context)
    waveform = torch.arange(samples, dtype=torch.float32)
    kept = []
    for chunk in chunks(waveform.split(block) if samples else [], window, grid):
        frames = chunk.waveform.unfold(0, grid.reach, grid.hop)[:, 0].tolist()
        assert len(frames) <= window.frames
        assert len(chunk.waveform) <= window.samples(grid)
        start = chunk.skip
        kept += frames[start : start + chunk.keep]
        # Context on each side, as far as the recording goes.
        first = int(frames[start]) // grid.hop
        assert start == min(context, first)
        assert len(frames) - start - chunk.keep == min(context, num_frames(samples, grid) - first - chunk.keep)
    assert kept == [grid.hop * i for i in range(num_frames(samples, grid))]


def test_audio_of_one_window_needs_no_cut() -> None:
    window = Window(10, 3)
    assert num_frames(window.samples()) == window.frames == num_frames(window.samples() + 1) - 1
    with pytest.raises(ValueError, match="at least"):
        Window(0, 3)


@pytest.mark.parametrize("seconds", [0.02, 0.1, 1.0, 14.99, 15.0, 30.0])
def test_a_window_of_so_many_seconds(seconds: float) -> None:
    window = Window.within(seconds)
    assert window.frames == int(seconds * 50 + 1e-9)
    assert 4 * window.context <= window.keep
    assert Window.within(30) == Window()
