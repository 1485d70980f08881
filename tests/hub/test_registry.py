import json
from pathlib import Path

import pytest
from file_server import Site, serving
from small_models import save_tiny

import spintok
from spintok.hub import registry, registry_file
from spintok.hub.download import DownloadError
from spintok.hub.registry_file import EntryError, write_entry


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("SPINTOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPINTOK_REGISTRY", raising=False)
    monkeypatch.delenv("SPINTOK_OFFLINE", raising=False)


def register(monkeypatch, folder: Path, url: str, path: Path) -> Path:
    """A registry file for the tokenizer in the folder, which is served at the address."""
    entry = registry.make_entry(folder, url, licence="MIT", description="A tiny one")
    path.write_text(write_entry(entry))
    monkeypatch.setenv("SPINTOK_REGISTRY", str(path))
    return path


def test_the_default_is_known_and_has_a_card() -> None:
    folder = registry.known()[registry.DEFAULT].folder
    assert folder == registry.find(registry.DEFAULT)
    assert json.loads((folder / "config.json").read_text())["name"] == registry.DEFAULT
    assert "licence" in (folder / "README.md").read_text()


def test_what_ships_says_what_it_is() -> None:
    for name in registry.shipped():
        one = registry.known()[name]
        assert one.where == "shipped"
        assert one.codebooks == {book: spintok.load(name).size_of(book) for book in spintok.load(name).codebook_names}
        assert one.size > 1000
        assert one.licence, f"{one.folder}/README.md needs `license:` at its head"
        assert one.description, f"{one.folder}/README.md needs `description:` at its head"


def test_a_checkout_finds_its_own_tokenizers(monkeypatch) -> None:
    def missing(package: str) -> None:
        raise ModuleNotFoundError(package)

    before = registry.known()
    monkeypatch.setattr(registry_file, "files", missing)
    assert list(registry.known()) == list(before)


def test_unknown_names_list_the_known(monkeypatch, tmp_path) -> None:
    register(monkeypatch, save_tiny(tmp_path / "t"), "https://example.org", tmp_path / "r.toml")
    with pytest.raises(ValueError, match=f"unknown tokenizer 'nope'.*{registry.DEFAULT}, .*tiny"):
        registry.find("nope")


def test_a_tokenizer_that_lives_elsewhere_is_loaded_by_its_name(monkeypatch, tmp_path) -> None:
    folder = save_tiny(tmp_path / "t")
    with serving(Site({f"/{path.name}": path.read_bytes() for path in folder.iterdir()})) as site:
        register(monkeypatch, folder, site.url, tmp_path / "r.toml")
        assert registry.known()["tiny"].where == "to download"
        with pytest.raises(DownloadError, match="forbids downloads"):
            spintok.load("tiny", offline=True)
        seen = []
        loaded = spintok.load("tiny", progress=lambda *told: seen.append(told))
        assert loaded.fingerprint == spintok.load(folder).fingerprint
        assert seen
    one = registry.known()["tiny"]
    assert (one.where, one.codebooks, one.licence) == ("cached", {"primary": 7}, "MIT")
    assert one.size == sum(path.stat().st_size for path in folder.iterdir())
    # The server is gone.
    assert spintok.load("tiny").fingerprint == loaded.fingerprint


def test_the_environment_forbids_downloads_and_an_argument_allows_them(monkeypatch, tmp_path) -> None:
    folder = save_tiny(tmp_path / "t")
    register(monkeypatch, folder, folder.as_uri(), tmp_path / "r.toml")
    monkeypatch.setenv("SPINTOK_OFFLINE", "1")
    with pytest.raises(DownloadError, match="SPINTOK_OFFLINE"):
        spintok.load("tiny")
    assert spintok.load("tiny", offline=False).name == "tiny"
    assert spintok.load("tiny").name == "tiny"


def test_folders_come_before_names(monkeypatch, tmp_path) -> None:
    folder = save_tiny(tmp_path / "t")
    register(monkeypatch, folder, "http://127.0.0.1:9/nothing", tmp_path / "r.toml")
    monkeypatch.chdir(tmp_path)
    save_tiny(Path("tiny"), size=9)
    assert spintok.load("tiny").codebook_size == 9


def test_several_files_add_up(monkeypatch, tmp_path) -> None:
    first = register(monkeypatch, save_tiny(tmp_path / "t"), "https://example.org", tmp_path / "a.toml")
    second = tmp_path / "b.toml"
    second.write_text(first.read_text().replace('"tiny"', '"other"'))
    monkeypatch.setenv("SPINTOK_REGISTRY", f"{first}:{second}:")
    assert list(registry.entries())[-2:] == ["tiny", "other"]


@pytest.mark.parametrize("name", [registry.DEFAULT, "tiny"])
def test_a_name_is_given_once(monkeypatch, tmp_path, name) -> None:
    first = register(monkeypatch, save_tiny(tmp_path / "t"), "https://example.org", tmp_path / "a.toml")
    second = tmp_path / "b.toml"
    second.write_text(first.read_text().replace('"tiny"', f'"{name}"'))
    monkeypatch.setenv("SPINTOK_REGISTRY", f"{first}:{second}")
    owner = "ships with spintok" if name == registry.DEFAULT else r"is in .*a\.toml"
    with pytest.raises(EntryError, match=rf"b\.toml: \[{name}\]: a tokenizer of this name {owner}"):
        registry.known()
    # What ships stays what it is.
    assert spintok.load().name == registry.DEFAULT


def test_a_registry_that_is_not_there_is_an_error(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("SPINTOK_REGISTRY", str(tmp_path / "no.toml"))
    with pytest.raises(EntryError, match=r"no\.toml: cannot be read"):
        registry.find("nope")


def test_an_entry_takes_its_words_from_the_card(tmp_path) -> None:
    folder = save_tiny(tmp_path / "t")
    with pytest.raises(ValueError, match="needs a licence.*add --licence"):
        registry.make_entry(folder, "https://example.org/t/")
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\ndescription: Tiny\n---\n")
    entry = registry.make_entry(folder, "https://example.org/t/")
    assert (entry.name, entry.licence, entry.description) == ("tiny", "cc0-1.0", "Tiny")
    assert entry.files["README.md"].url == "https://example.org/t/README.md"
    assert registry.make_entry(folder, "https://example.org", licence="MIT").licence == "MIT"


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("---\nlicense: mit\n# no: field\ndescription: 'a: b'\ntags:\n  - x: y\n---\nlicense: other\n", True),
        ("license: mit\n", False),
        ("---\nlicense: mit\n", False),
        ("", False),
        (None, False),
    ],
)
def test_the_metadata_of_a_card_are_between_its_first_two_rules(tmp_path, text, fields) -> None:
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    expected = {"license": "mit", "description": "a: b", "tags": ""} if fields else {}
    assert registry.read_card(tmp_path) == expected
