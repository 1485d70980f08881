"""Fixtures of the export tests."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spintok.cli import main
from spintok.corpus.token_formats import Record
from tests.export.token_folders import make_records, write_folder


@pytest.fixture
def records() -> list[Record]:
    return make_records()


@pytest.fixture
def folder(tmp_path: Path, records: list[Record]) -> Path:
    return write_folder(tmp_path / "tokens", records)


@pytest.fixture
def same() -> Callable[[list[Record], list[Record]], None]:
    """Equal in everything that a record holds."""

    def check(found: list[Record], expected: list[Record]) -> None:
        assert found == expected
        for one, other in zip(found, expected, strict=True):
            assert {n: t.num_samples for n, t in one.tokens.items()} == {
                n: t.num_samples for n, t in other.tokens.items()
            }

    return check


@pytest.fixture
def run(monkeypatch, capsys):
    """``spintok export`` with these arguments: its exit code, standard output and standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["spintok", "export", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call
