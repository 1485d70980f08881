"""What all tests share."""

from pathlib import Path

import pytest
import torch

# The tests' problems are small: a second thread only waits, and on a loaded machine it makes them 20 times slower.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def speech() -> Path:
    """A folder of synthesised speech: six short FLACs, six voices."""
    return Path(__file__).parent / "speech"
