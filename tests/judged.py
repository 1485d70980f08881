"""What the tests of judges share: a mark that skips them without the packages, and the sample recordings."""

import numpy as np
import pytest
from voices import SPEECH

from spintok.data.audio import read
from spintok.evaluate.resynthesis.packages import missing_packages

needs_judges = pytest.mark.skipif(missing_packages() is not None, reason=missing_packages() or "")


def sample(name: str) -> np.ndarray:
    """A recording of tests/speech, float32 at 16 kHz."""
    return read(SPEECH / f"{name}.flac").numpy()
