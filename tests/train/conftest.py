"""What the tests of training share."""

from pathlib import Path

import pytest
from small_models import save_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer folder whose encoder has three small layers."""
    return save_tiny(tmp_path_factory.mktemp("tiny"))
