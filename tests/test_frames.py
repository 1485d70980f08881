import pytest
from hypothesis import given
from hypothesis import strategies as st

from spintok import frames

KERNELS_AND_STRIDES = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))


def conv_stack(length: int) -> int:
    """Output length of HuBERT's convolutions, one after the other."""
    for kernel, stride in KERNELS_AND_STRIDES:
        length = (length - kernel) // stride + 1 if length >= kernel else 0
    return length


def test_num_frames_is_the_conv_stacks_for_every_length() -> None:
    assert [frames.num_frames(n) for n in range(32_001)] == [conv_stack(n) for n in range(32_001)]


@given(st.integers(1, 10**9))
def test_num_samples_is_the_fewest(count: int) -> None:
    samples = frames.num_samples(count)
    assert frames.num_frames(samples) == count
    assert frames.num_frames(samples - 1) == count - 1


def test_times() -> None:
    assert frames.FRAME_RATE == 50
    assert frames.frames_to_seconds(50) == 1.0
    assert frames.frame_center_seconds(0) == 0.0125
    with pytest.raises(ValueError, match="at least 0"):
        frames.num_frames(-1)
