import json

import pytest

from spintok import registry


def test_the_default_is_known_and_has_a_card() -> None:
    folder = registry.known()[registry.DEFAULT]
    assert folder == registry.find(registry.DEFAULT)
    assert json.loads((folder / "config.json").read_text())["name"] == registry.DEFAULT
    assert "licence" in (folder / "README.md").read_text()


def test_a_checkout_finds_its_own_tokenizers(monkeypatch) -> None:
    def missing(package: str) -> None:
        raise ModuleNotFoundError(package)

    before = registry.known()
    monkeypatch.setattr(registry, "files", missing)
    assert list(registry.known()) == list(before)


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ValueError, match=registry.DEFAULT):
        registry.find("nope")
