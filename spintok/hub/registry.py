"""Tokenizers by name: those that ship with spintok, and those whose weights live elsewhere."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from spintok.hub.cache import fetch, folder_of, is_cached, is_offline
from spintok.hub.card import read_card
from spintok.hub.download import Progress, sha256_of
from spintok.hub.registry_file import FILES, Entry, EntryError, RemoteFile, read_entries

__all__ = ["DEFAULT", "Known", "describe", "entries", "find", "known", "shipped"]

DEFAULT = "dc-spin-10m-en"
"""The tokenizer of ``spintok.load()``."""


@dataclass(frozen=True)
class Known:
    """A tokenizer that has a name.

    Attributes:
        name: what ``spintok.load`` calls it.
        codebooks: K of each codebook, the primary first.
        licence: of the weights.
        size: bytes of its files.
        where: whether it ships with spintok, was downloaded, or would be.
        folder: where its files lie, or will.
        description: one line.
    """

    name: str
    codebooks: Mapping[str, int]
    licence: str
    size: int
    where: Literal["shipped", "cached", "to download"]
    folder: Path
    description: str


def shipped() -> dict[str, Path]:
    """The name and the folder of every tokenizer that ships with spintok."""
    with as_file(_pretrained()) as root:
        return {folder.name: folder for folder in sorted(root.iterdir()) if (folder / "config.json").is_file()}


def entries() -> dict[str, Entry]:
    """Every entry of spintok's own registry file and of those that SPINTOK_REGISTRY names, by name.

    SPINTOK_REGISTRY holds paths, with a colon (on Windows a semicolon) between them.

    Raises:
        EntryError: a file cannot be used, or a name is given twice.
    """
    with as_file(_pretrained()) as root:
        paths = [root / "registry.toml"]
    paths += [Path(path) for path in os.environ.get("SPINTOK_REGISTRY", "").split(os.pathsep) if path]
    taken = dict.fromkeys(shipped(), "ships with spintok")
    found: dict[str, Entry] = {}
    for path in paths:
        for name, entry in read_entries(path).items():
            if name in taken:
                raise EntryError(f"{path}: [{name}]: the name is taken, by one that {taken[name]}; choose another")
            found[name] = entry
            taken[name] = f"is in {path}"
    return found


def known() -> dict[str, Known]:
    """Every tokenizer that has a name. Raises ``EntryError`` for a registry file that cannot be used."""
    found = [_shipped(name, folder) for name, folder in shipped().items()]
    found += [
        Known(
            entry.name,
            entry.codebooks,
            entry.licence,
            entry.size,
            "cached" if is_cached(entry) else "to download",
            folder_of(entry),
            entry.description,
        )
        for entry in entries().values()
    ]
    return {one.name: one for one in found}


def find(name: str, *, offline: bool | None = None, progress: Progress | None = None) -> Path:
    """The folder of the tokenizer ``name``, which is downloaded if it lives elsewhere and is not there yet.

    Args:
        name: of a tokenizer that ships, or of a registry entry.
        offline: whether to download nothing; by default as SPINTOK_OFFLINE says.
        progress: called while files come.

    Raises:
        EntryError: a registry file cannot be used.
        DownloadError: a file cannot be had.
        ValueError: there is no such name; the message lists those there are.
    """
    folders = shipped()
    if name in folders:
        return folders[name]
    elsewhere = entries()
    if name in elsewhere:
        return fetch(elsewhere[name], offline=is_offline() if offline is None else offline, progress=progress)
    raise ValueError(
        f"unknown tokenizer {name!r}: not a folder with a config.json, and not one of those that ship or that "
        f"SPINTOK_REGISTRY names: {', '.join([*folders, *elsewhere])}"
    )


def describe(folder: Path, url: str, *, licence: str | None = None, description: str | None = None) -> Entry:
    """The registry entry of a tokenizer's folder whose files will lie below ``url``.

    ``licence`` and ``description`` are those of the model card when they are not given. Raises ``ValueError`` when
    it has none either.
    """
    card = read_card(folder)
    licence, description = licence or card.get("license"), description or card.get("description")
    for name, value in (("licence", licence), ("description", description)):
        if not value:
            raise ValueError(f"a registry entry needs a {name}, and there is none in the model card: give --{name}")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    held = [folder / name for name in FILES if (folder / name).is_file()]
    return Entry(
        config["name"],
        description or "",
        licence or "",
        _codebooks(config),
        {
            path.name: RemoteFile(f"{url.rstrip('/')}/{path.name}", sha256_of(path), path.stat().st_size)
            for path in held
        },
        folder,
    )


def _pretrained() -> Traversable:
    try:
        return files("spintok.pretrained")
    except ModuleNotFoundError:
        # Python was started in a checkout, so this file is the checkout's and not the installed one.
        return Path(__file__).parents[2] / "pretrained"


def _shipped(name: str, folder: Path) -> Known:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    card = read_card(folder)
    return Known(
        name,
        _codebooks(config),
        card.get("license", ""),
        sum((folder / file).stat().st_size for file in FILES if (folder / file).is_file()),
        "shipped",
        folder,
        card.get("description", ""),
    )


def _codebooks(config: Mapping[str, Any]) -> dict[str, int]:
    return {codebook["name"]: codebook["size"] for codebook in config["codebooks"]}
