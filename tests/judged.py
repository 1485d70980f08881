"""What the tests of judges share: a mark that skips them without the packages, and the sample recordings."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from voices import SPEECH

from spintok.data.audio import read
from spintok.evaluate.resynthesis.packages import missing_packages
from spintok.frames import SAMPLE_RATE

needs_judges = pytest.mark.skipif(missing_packages() is not None, reason=missing_packages() or "")


def sample(name: str) -> np.ndarray:
    """A recording of tests/speech, float32 at 16 kHz."""
    return read(SPEECH / f"{name}.flac").numpy()


def one_window(folder: Path) -> Path:
    """``fred_yes`` with silence after it, in ``folder``.

    DNSMOS doubles a sound until it has a window of 9.01 s, and judges all windows a second apart: of this one there is
    one, of the recording itself there are six.
    """
    path = folder / "yes.flac"
    samples = sample("fred_yes")
    soundfile.write(path, np.pad(samples, (0, 18_800 - len(samples))), SAMPLE_RATE)
    return path
