"""A server that the tests of a module share."""

from collections.abc import Iterator

import pytest

from tests.serve.servers import running
from tests.streaming.streamers import tokenizer


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server of a small tokenizer that streams, at 80 ms."""
    with running(tokenizer("streaming"), idle_seconds=20) as found:
        yield found
