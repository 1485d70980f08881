"""Tokenizers by name: those that ship with spintok, and those that registry files say where to download."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file
from pathlib import Path
from typing import Any, Literal

from spintok.hub.download import fetch, folder_of, is_cached, is_offline, sha256_of
from spintok.hub.huggingface import fetch_repository, parse_repository
from spintok.hub.registry_file import FILES, Entry, EntryError, RemoteFile, pretrained, read_entries
from spintok.progress import Progress, no_progress

__all__ = ["DEFAULT", "Known", "entries", "find", "is_repository", "known", "make_entry", "read_card", "shipped"]

DEFAULT = "dc-spin-10m-en"
"""The tokenizer of ``spintok.load()``."""


@dataclass(frozen=True)
class Known:
    """A tokenizer that ``spintok.load`` finds by its name.

    Attributes:
        name: the argument of ``spintok.load``.
        codebooks: the number of codewords of each codebook, the primary one first.
        licence: the licence of the weights.
        size: total size of its files in bytes.
        where: whether it ships with spintok, is in the cache, or has to be downloaded.
        folder: contains its files, or will after the download.
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
    """The folder of each tokenizer that ships with spintok, by name."""
    with as_file(pretrained()) as root:
        return {folder.name: folder for folder in sorted(root.iterdir()) if (folder / "config.json").is_file()}


def entries() -> dict[str, Entry]:
    """The entries of spintok's own registry file and of those listed in SPINTOK_REGISTRY, by name.

    SPINTOK_REGISTRY contains paths, separated by a colon (on Windows by a semicolon).

    Raises:
        EntryError: a file cannot be read, or two tokenizers have the same name.
    """
    with as_file(pretrained()) as root:
        paths = [root / "registry.toml"]
    paths += [Path(path) for path in os.environ.get("SPINTOK_REGISTRY", "").split(os.pathsep) if path]
    taken = dict.fromkeys(shipped(), "ships with spintok")
    found: dict[str, Entry] = {}
    for path in paths:
        for name, entry in read_entries(path).items():
            if name in taken:
                raise EntryError(f"{path}: [{name}]: a tokenizer of this name {taken[name]}; choose another name")
            found[name] = entry
            taken[name] = f"is in {path}"
    return found


def known() -> dict[str, Known]:
    """All tokenizers that have a name. Raises ``EntryError`` for a registry file that cannot be read."""
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
    """The folder of the tokenizer ``name``, after downloading its missing files.

    Args:
        name: a tokenizer that ships with spintok, or a registry entry; or ORG/NAME or ORG/NAME@REVISION, a
            repository of the Hugging Face Hub with a tokenizer or an encoder.
        offline: whether downloads are forbidden; by default SPINTOK_OFFLINE decides.
        progress: called with ``NAME/FILE`` and the file's bytes during a download.

    Raises:
        EntryError: a registry file cannot be read.
        DownloadError: a file cannot be downloaded.
        ValueError: an unknown name; the message lists the known ones.
    """
    folders = shipped()
    if name in folders:
        return folders[name]
    elsewhere = entries()
    if name in elsewhere:
        return fetch(
            elsewhere[name], offline=is_offline() if offline is None else offline, progress=progress or no_progress
        )
    if (repository := parse_repository(name)) is not None:
        return fetch_repository(repository, offline=offline, progress=progress)
    if name.startswith(("torchaudio:", "s3prl:")):
        raise ValueError(
            f"{name} is an encoder without a codebook: train a K-means on it (spintok train kmeans_hubert_base --init "
            f"{name} --data SPEECH --output FOLDER), or bring one (spintok import)"
        )
    raise ValueError(
        f"unknown tokenizer {name!r}: neither a folder with a config.json, nor ORG/NAME on the Hugging Face Hub, nor "
        f"one of those that ship with spintok or are listed in SPINTOK_REGISTRY: {', '.join([*folders, *elsewhere])}"
    )


def is_repository(name: str) -> bool:
    """Whether this names a repository of the Hugging Face Hub: it has the form of one, and is no path or known name."""
    return parse_repository(name) is not None and not Path(name).exists()


def make_entry(folder: Path, url: str, *, licence: str | None = None, description: str | None = None) -> Entry:
    """The registry entry of a tokenizer's folder that will be served at ``url``.

    ``licence`` and ``description`` default to those in the model card. Raises ``ValueError`` if it has none.
    """
    card = read_card(folder)
    licence, description = licence or card.get("license"), description or card.get("description")
    for name, value in (("licence", licence), ("description", description)):
        if not value:
            raise ValueError(f"a registry entry needs a {name}, and the model card has none: add --{name}")
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


def read_card(folder: Path) -> dict[str, str]:
    """The metadata of a tokenizer's README.md, such as ``license`` and ``description``.

    These are the one-line fields between the first two lines of ``---``, where Hugging Face model cards have them.
    Empty if there is no README.md or no such block.
    """
    path = folder / "README.md"
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
    if lines[:1] != ["---"] or "---" not in lines[1:]:
        return {}
    head = lines[1 : lines.index("---", 1)]
    pairs = (line.partition(":") for line in head if not line.startswith((" ", "#")))
    return {name.strip(): value.strip().strip("\"'") for name, colon, value in pairs if colon}


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
