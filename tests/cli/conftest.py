"""Fixtures of the tests of commands."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest


@pytest.fixture
def standard_input(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable]:
    """A function that takes the bytes that a command is to read from its standard input."""
    with ExitStack() as opened:

        def fill(data: bytes) -> None:
            path: Path = tmp_path_factory.mktemp("input") / "data"
            path.write_bytes(data)
            monkeypatch.setattr(sys, "stdin", opened.enter_context(path.open()))

        yield fill
