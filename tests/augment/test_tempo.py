import numpy as np
import pytest

from spintok.augment.tempo import time_stretch


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * 16000)) / 16000).astype(np.float32)


def peak(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * 16000 / len(samples))


@pytest.mark.parametrize("tempo", [0.8, 1.0, 1.25])
def test_tempo_keeps_pitch_and_level(tempo: float) -> None:
    found = time_stretch(tone(200), tempo)
    assert len(found) == round(16000 / tempo)
    assert peak(found[800:-800]) == pytest.approx(200, abs=2)
    assert np.std(found[800:-800]) == pytest.approx(np.sqrt(0.5), rel=0.03)
    if tempo == 1.0:
        assert np.allclose(found[480:-480], tone(200)[480:-480], atol=1e-3)
    assert len(time_stretch(np.zeros(0, dtype=np.float32), tempo)) == 0
