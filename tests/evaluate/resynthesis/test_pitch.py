"""F0 of tones whose pitch is known, and errors worked out by hand."""

import numpy as np
import pytest
from judged import needs_judges

from spintok.evaluate.resynthesis.pitch import pitch, pitch_errors


@needs_judges
def test_pitch_of_a_buzz_between_silences() -> None:
    time = np.arange(16_000) / 16_000
    buzz = sum(np.sin(2 * np.pi * 200 * k * time) / k for k in range(1, 20))
    quiet = np.zeros(8000)
    f0 = pitch(np.concatenate([quiet, 0.2 * buzz, quiet]).astype(np.float32))
    assert len(f0) == 32_000 // 80 + 1
    assert f0[110:290] == pytest.approx(200, rel=0.01)
    assert not f0[:90].any()
    assert not f0[310:].any()
    assert pitch(np.zeros(0, dtype=np.float32)).size == 0


def test_errors_by_hand() -> None:
    reference = np.array([0.0, 100, 100, 100, 0, 0])
    other = np.array([0.0, 200, 100, 0, 150])
    found = pitch_errors(reference, other)
    assert (found.frames, found.decisions, found.voiced) == (5, 2, 2)
    # An octave and nothing; without the mean, half an octave each.
    assert found.squares == pytest.approx(1200**2)
    assert found.contour_squares == pytest.approx(2 * 600**2)
    assert pitch_errors(reference, 1.5 * reference).contour_squares == pytest.approx(0)
    assert pitch_errors(np.zeros(3), other) == (3, 2, 0, 0.0, 0.0)
