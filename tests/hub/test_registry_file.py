from importlib.resources import files
from pathlib import Path

import pytest

from spintok.hub.registry_file import Entry, EntryError, RemoteFile, read_entries, write_entry

GOOD = f"""
["team.100"]
description = "DC-Spin"
licence = "CC-BY-4.0"
codebooks = {{ primary = 100, auxiliary = 2048 }}
["team.100".files]
"config.json" = {{ url = "https://example.org/c", sha256 = "{"a" * 64}", size = 7 }}
"model.safetensors" = {{ url = "http://example.org/w", sha256 = "{"B" * 64}", size = 9 }}
"""


@pytest.fixture
def path(tmp_path) -> Path:
    (tmp_path / "r.toml").write_text(GOOD)
    return tmp_path / "r.toml"


def test_an_entry_is_read_and_written(path) -> None:
    entry = read_entries(path)["team.100"]
    assert entry == Entry(
        "team.100",
        "DC-Spin",
        "CC-BY-4.0",
        {"primary": 100, "auxiliary": 2048},
        {
            "config.json": RemoteFile("https://example.org/c", "a" * 64, 7),
            "model.safetensors": RemoteFile("http://example.org/w", "b" * 64, 9),
        },
        path,
    )
    assert entry.size == 16
    path.write_text(write_entry(entry))
    assert read_entries(path) == {"team.100": entry}


def test_odd_text_is_written_so_that_it_reads_back(path) -> None:
    entry = read_entries(path)["team.100"]
    odd = Entry(entry.name, 'with "quotes", \\ and \N{PILE OF POO}', "Žádná", entry.codebooks, entry.files, path)
    path.write_text(write_entry(odd), encoding="utf-8")
    assert read_entries(path) == {"team.100": odd}


def test_other_weights_have_another_digest(path) -> None:
    before = read_entries(path)["team.100"].digest
    path.write_text(GOOD.replace("a" * 64, "c" * 64))
    assert read_entries(path)["team.100"].digest != before


def test_the_form_in_the_shipped_file_is_an_entry(tmp_path) -> None:
    text = files("spintok.pretrained").joinpath("registry.toml").read_text(encoding="utf-8")
    form = text.split("this is the form:\n#\n")[1].split("\n#\n")[0]
    (tmp_path / "r.toml").write_text("\n".join(line.removeprefix("# ") for line in form.splitlines()))
    (entry,) = read_entries(tmp_path / "r.toml").values()
    assert list(entry.files) == ["config.json", "model.safetensors", "README.md"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"team.100"]', '"team/100"]', r"\[team/100\]: a name, which becomes that of a folder"),
        ("[", "[[[", "not TOML"),
        ('["team.100"]', '["..".files]\n["team.100"]', r"\[\.\.\]: a name, which"),
        ('["team.100"]', 'team = 1\n["team.100"]', "team: must be a table"),
        ('description = "DC-Spin"', "", r"\[team.100\]: description is missing"),
        ('"DC-Spin"', '"a\\nb"', r"\[team.100\]: description must be one line of text"),
        ('"DC-Spin"', '" "', r"\[team.100\]: description must be one line of text"),
        ('"CC-BY-4.0"', "4.0", r"\[team.100\]: licence must be one line of text, got 4.0"),
        ("licence", "license", r"\[team.100\]: unknown field 'license'; known: description, licence"),
        ("{ primary = 100, auxiliary = 2048 }", "{}", r"\[team.100\]: codebooks must give"),
        ("{ primary = 100, auxiliary = 2048 }", "100", r"\[team.100\]: codebooks must give"),
        ("primary = 100", "primary = 0", r"\[team.100\]: codebooks must give"),
        ("primary = 100", "primary = true", r"\[team.100\]: codebooks must give"),
        ('"config.json"', '"config.yaml"', r"\[team.100.files\]: unknown field 'config.yaml'; known: config.json"),
        ('"model.safetensors"', '"README.md"', r"\[team.100.files\]: model.safetensors is missing"),
        ('"model.safetensors"', '"model.pt"', r"unknown field 'model.pt'"),
        (", size = 9", "", r"\[team.100.files\]: model.safetensors: size is missing"),
        ("size = 9", "size = '9'", r"model.safetensors: size must be the file's size in bytes"),
        ("size = 9", f"size = {'9' * 4000}", r"model.safetensors: size must be the file's size in bytes"),
        ("size = 9", f"size = {'9' * 5000}", "not TOML"),
        ("size = 9", f"size = {'[' * 5000}", "not TOML"),
        ("primary = 100", f"primary = {'9' * 100}", r"\[team.100\]: codebooks must give"),
        ('"DC-Spin"', '"a\\u001b[31mb"', r"\[team.100\]: description must be one line of text"),
        ("size = 9", "size = -9", r"model.safetensors: size must be the file's size in bytes"),
        ("B" * 64, "B" * 63, r"model.safetensors: sha256 must be 64 hexadecimal digits"),
        ('"http://example.org/w"', "9", "model.safetensors: url must be text, got 9"),
        ("http://example.org/w", "ftp://example.org/w", r"url 'ftp://example.org/w' must begin with https://"),
        ("http://example.org/w", "weights/w", r"url 'weights/w' must begin with https://"),
        ("http://example.org/w", "http:///w", "must name a host"),
        ("http://example.org/w", "http://example.org/a b", "must name a host and contain only ASCII without spaces"),
        ("http://example.org/w", "http://example.org/\u00e9", "contain only ASCII"),
        ("http://example.org/w", "http://[::1/w", "is not a valid address"),
        ("http://example.org/w", "file://server/w", "must be file:// and an absolute path"),
        ("http://example.org/w", "file:w", "must be file:// and an absolute path"),
    ],
)
def test_a_bad_field_is_named_with_its_file(path, old, new, message) -> None:
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(EntryError, match=r"r\.toml: ") as caught:
        read_entries(path)
    assert caught.match(message)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_registry(tmp_path) -> None:
    with pytest.raises(EntryError, match=r"no\.toml: cannot be read as a registry \(No such file"):
        read_entries(tmp_path / "no.toml")
    with pytest.raises(EntryError, match="cannot be read as a registry"):
        read_entries(tmp_path)
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(EntryError, match="not TOML"):
        read_entries(tmp_path / "b.toml")
