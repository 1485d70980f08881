import pytest
from hypothesis import given
from hypothesis import strategies as st

from spintok import frames

KERNELS_AND_STRIDES = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))


def conv_stack(length: int, layers: tuple[tuple[int, int], ...] = KERNELS_AND_STRIDES) -> int:
    """Output length of convolutions, one after the other."""
    for kernel, stride in layers:
        length = (length - kernel) // stride + 1 if length >= kernel else 0
    return length


def test_num_frames_is_the_conv_stacks_for_every_length() -> None:
    assert [frames.num_frames(n) for n in range(32_001)] == [conv_stack(n) for n in range(32_001)]


@given(st.integers(1, 10**9))
def test_num_samples_is_the_fewest(count: int) -> None:
    samples = frames.num_samples(count)
    assert frames.num_frames(samples) == count
    assert frames.num_frames(samples - 1) == count - 1


@pytest.mark.parametrize(
    "layers",
    [
        (*KERNELS_AND_STRIDES, (2, 2)),  # mHuBERT at 25 Hz
        KERNELS_AND_STRIDES[:6],
        ((320, 320),),
        ((10, 5), (8, 4), (4, 2), (4, 2), (4, 2)),  # CPC, 100 Hz, without its padding
    ],
)
def test_grids_of_other_convolutions(layers: tuple[tuple[int, int], ...]) -> None:
    grid = frames.FrameGrid.of_convolutions(*zip(*layers, strict=True))
    expected = [conv_stack(n, layers) for n in range(5_000)]
    assert [frames.num_frames(n, grid) for n in range(5_000)] == expected
    assert (
        frames.num_frames(frames.num_samples(7, grid), grid)
        == 7
        == 1 + frames.num_frames(frames.num_samples(7, grid) - 1, grid)
    )
    assert frames.frames_to_seconds(grid.rate, grid) == 1.0
    assert frames.frame_center_seconds(0, grid) == grid.reach / 32_000


@pytest.mark.parametrize(("hop", "reach"), [(0, 400), (321, 400), (320, 319), (320, 10**9), (True, 400), ("320", 400)])
def test_impossible_grids(hop: int, reach: int) -> None:
    with pytest.raises(ValueError, match="frames"):
        frames.FrameGrid(hop, reach)


def test_times() -> None:
    assert frames.FRAME_RATE == 50
    assert frames.frames_to_seconds(50) == 1.0
    assert frames.frame_center_seconds(0) == 0.0125
    with pytest.raises(ValueError, match="at least 0"):
        frames.num_frames(-1)
