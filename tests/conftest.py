"""What all tests share."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

# The tests' problems are small: a second thread only waits, and on a loaded machine it makes them 20 times slower.
torch.set_num_threads(1)

# No test may fail because the machine is busy.
settings.register_profile("spintok", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("spintok")


@pytest.fixture(scope="session")
def speech() -> Path:
    """A folder of synthesised speech: six short FLACs, six voices."""
    return Path(__file__).parent / "speech"
