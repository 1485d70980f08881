"""The resampler of streams: against its definition and soxr, in any cutting, and with a bounded memory."""

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from spintok.data.audio import as_streams, from_array
from spintok.data.resampling import StreamResampler


def whole(samples: np.ndarray, rate: int) -> np.ndarray:
    resampler = StreamResampler(rate)
    return np.concatenate([resampler.push(samples), resampler.finish()])


@pytest.mark.parametrize("rate", [1_000, 8_000, 11_025, 22_050, 44_099, 44_100, 48_000, 192_000])
def test_it_agrees_with_soxr(rate: int) -> None:
    length = rate // 4 + 17
    time = np.arange(length) / rate
    # Well inside both passbands, and zero at the ends.
    tone = np.sin(2 * np.pi * min(700, rate / 5) * time) * np.hanning(length)
    samples = tone.astype(np.float32)
    found = whole(samples, rate)
    assert found.dtype == np.float32
    assert len(found) == int(np.floor(length * 16_000 / rate + 0.5))
    # Both promise about 100 dB.
    assert np.abs(found - soxr.resample(samples, rate, 16_000, quality="HQ")[: len(found)]).max() < 2e-5


@pytest.mark.parametrize(("hertz", "gain"), [(7_000, 1.0), (8_200, 0.0), (15_000, 0.0)])
def test_what_would_alias_is_taken_away(hertz: int, gain: float) -> None:
    samples = np.sin(2 * np.pi * hertz * np.arange(48_000) / 48_000).astype(np.float32)
    middle = whole(samples, 48_000)[2_000:-2_000]
    assert abs(np.sqrt(2 * np.mean(middle.astype(np.float64) ** 2)) - gain) < 1e-4


@settings(max_examples=30)
@given(
    rate=st.sampled_from([8_000, 11_025, 24_000, 44_099, 44_100, 48_000, 192_000]),
    cuts=st.lists(st.integers(0, 2_000), max_size=20),
    seed=st.integers(0, 100),
)
def test_no_cutting_changes_a_sample(rate: int, cuts: list[int], seed: int) -> None:
    samples = np.random.default_rng(seed).standard_normal(3_000).astype(np.float32)
    resampler = StreamResampler(rate)
    found, start = [], 0
    for size in [*cuts, len(samples)]:
        found.append(resampler.push(samples[start : start + size]))
        assert len(resampler.tail) <= resampler.tail_size
        start += size
    found.append(resampler.finish())
    np.testing.assert_array_equal(np.concatenate(found), whole(samples, rate))


def test_single_samples_change_nothing() -> None:
    samples = np.random.default_rng(3).standard_normal(1_500).astype(np.float32)
    resampler = StreamResampler(44_100)
    found = [resampler.push(samples[i : i + 1]) for i in range(len(samples))] + [resampler.finish()]
    np.testing.assert_array_equal(np.concatenate(found), whole(samples, 44_100))


def test_arrays_can_be_resampled_as_streams() -> None:
    samples = np.random.default_rng(3).standard_normal(5_000).astype(np.float32)
    np.testing.assert_array_equal(from_array(samples, 24_000, as_streams).numpy(), whole(samples, 24_000))
    assert not np.array_equal(from_array(samples, 24_000).numpy(), whole(samples, 24_000))
