"""A small tokenizer and a few recordings for the tests of jobs."""

import pytest
from voices import mfcc_tokenizer

from spintok.data.manifest import Utterance
from tests.corpus.jobs import make_recording


@pytest.fixture(scope="module")
def mfcc():
    return mfcc_tokenizer()


@pytest.fixture
def recordings(tmp_path) -> list[Utterance]:
    """Five recordings of different lengths, which are three shards of two."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    return [make_recording(folder, i) for i in range(5)]
