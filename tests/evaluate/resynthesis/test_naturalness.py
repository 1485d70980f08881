"""DNSMOS against speechmos itself."""

import numpy as np
import pytest
from judged import needs_judges, sample

from spintok.evaluate.resynthesis.naturalness import Naturalness
from spintok.evaluate.resynthesis.packages import load

pytestmark = needs_judges

LENGTH = 36_800
"""A quarter of 9.2 s: repeated, it is one window of the model, where the whole recording is four."""


def test_scores_are_those_of_the_library() -> None:
    waveform = sample("eve_bus")[:LENGTH]
    found = Naturalness().quality(waveform)
    expected = load("speechmos.dnsmos", "a test").run(waveform, 16_000)
    # One thread adds in another order than several; scores are quoted with two digits.
    assert found.overall == pytest.approx(expected["ovrl_mos"], abs=1e-4)
    assert found.signal == pytest.approx(expected["sig_mos"], abs=1e-4)
    assert found.background == pytest.approx(expected["bak_mos"], abs=1e-4)


def test_noise_lowers_the_score_and_samples_are_clipped() -> None:
    judge, waveform = Naturalness(), sample("eve_bus")[:LENGTH]
    noise = np.random.default_rng(0).normal(0, 0.05, waveform.shape).astype(np.float32)
    clean, noisy = judge.quality(waveform), judge.quality(waveform + noise)
    assert noisy.overall < clean.overall - 0.5
    assert noisy.background < clean.background - 0.5
    assert judge.quality(3 * waveform) == judge.quality(np.clip(3 * waveform, -1, 1))
    with pytest.raises(ValueError, match="at least one sample"):
        judge.quality(waveform[:0])
