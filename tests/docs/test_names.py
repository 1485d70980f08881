"""Every name of spintok that the documents mention exists."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from spintok._files import MissingPackageError

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "recipes/*.md", "pretrained/**/*.md", "spintok/**/*.md", "kernels/**/*.md")
    for path in ROOT.glob(pattern)
    # The history names what was.
    if path.name != "CHANGELOG.md"
)
NAME = re.compile(r"(?<![\w./-])(spintok(?:_kernels)?(?:\.[A-Za-z_]\w*)+)(?![\w/])")
METADATA = {"spintok.fingerprint"}
"""Keys of Parquet metadata, which look like names."""

FILES = (".json", ".toml", ".git", ".md", ".py", ".sh")


def names(text: str) -> set[str]:
    """The dotted names below spintok, and what is imported from them."""
    found = {name for name in NAME.findall(text) if not name.endswith(FILES)} - METADATA
    for module, imported in re.findall(r"from (spintok[\w.]*) import ([\w, ]+)", text):
        found |= {f"{module}.{name.split(' as ')[0].strip()}" for name in imported.split(",")}
    return found


def exists(name: str) -> bool:
    """Whether the name is a module, or an attribute of the longest part of it that is one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        except MissingPackageError:
            # A module for users of an optional package; its own test needs that package too.
            return True
        for part in parts[length:]:
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True
    return False


def test_the_pattern_finds_names() -> None:
    text = (
        "`spintok.export.speech_only`, spintok.toml, vocabulary.spintok.json, from spintok.tokens import Tokens, expand"
    )
    assert names(text) == {
        "spintok.export.speech_only",
        "spintok.tokens",
        "spintok.tokens.Tokens",
        "spintok.tokens.expand",
    }
    assert exists("spintok.export.speech_only")
    assert exists("spintok.Tokenizer.encode")
    assert not exists("spintok.export.no_such_name")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_exist(page: Path) -> None:
    missing = sorted(name for name in names(page.read_text(encoding="utf-8")) if not exists(name))
    assert not missing


def test_the_export_package_offers_what_it_promises() -> None:
    import spintok.export

    for name in spintok.export.__all__:
        assert getattr(spintok.export, name).__doc__ or name.isupper()
