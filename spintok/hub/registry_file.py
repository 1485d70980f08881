"""Parse and write registry files: the URL, SHA-256 and size of each tokenizer's files, in TOML."""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["FILES", "REQUIRED", "Entry", "EntryError", "RemoteFile", "pretrained", "read_entries", "write_entry"]

REQUIRED = ("config.json", "model.safetensors")
FILES = (*REQUIRED, "README.md")
"""The files of a tokenizer's folder: configuration, weights and, optionally, the model card."""

_FIELDS = ("description", "licence", "codebooks", "files")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST = 2**53
"""Above every size of a file or a codebook."""


class EntryError(ValueError):
    """A registry file that cannot be read; the message names the file, the field and the cause."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to download: its address, its SHA-256 in hexadecimal, and its size in bytes."""

    url: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Entry:
    """A tokenizer that can be downloaded.

    Attributes:
        name: the argument of ``spintok.load``.
        description: one line.
        licence: the licence of the weights, as an SPDX identifier or in words.
        codebooks: the number of codewords of each codebook, the primary one first.
        files: the files by their names in the tokenizer's folder; all of ``REQUIRED``, some of ``FILES``.
        origin: the registry file.
    """

    name: str
    description: str
    licence: str
    codebooks: Mapping[str, int]
    files: Mapping[str, RemoteFile]
    origin: Path

    @property
    def size(self) -> int:
        """Total size of the files in bytes."""
        return sum(file.size for file in self.files.values())

    @property
    def digest(self) -> str:
        """SHA-256 of the files' checksums; it changes with the weights."""
        lines = "".join(f"{name}:{file.sha256}\n" for name, file in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def pretrained() -> Traversable:
    """The folder of what ships with spintok: tokenizers, its own registry file, the catalogue."""
    try:
        return files("spintok.pretrained")
    except ModuleNotFoundError:
        # Python runs in a checkout and imports spintok from there; ``pretrained`` is beside it.
        return Path(__file__).parents[2] / "pretrained"


def read_entries(path: Path) -> dict[str, Entry]:
    """The entries of a registry file, by name.

    Raises:
        EntryError: one line with the file, the field and the cause.
    """
    try:
        return _parse(path.read_text(encoding="utf-8"), path)
    except OSError as error:
        raise EntryError(f"{path}: cannot be read as a registry ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise EntryError(f"{path}: not TOML: {error}") from None


def write_entry(entry: Entry) -> str:
    """The entry as text to append to a registry file; ``read_entries`` reads it back.

    Raises:
        EntryError: a field is not valid in a registry file.
    """
    lines = [
        f"[{_quoted(entry.name)}]",
        f"description = {_quoted(entry.description)}",
        f"licence = {_quoted(entry.licence)}",
        f"codebooks = {{ {', '.join(f'{_quoted(name)} = {size}' for name, size in entry.codebooks.items())} }}",
        f"[{_quoted(entry.name)}.files]",
    ]
    for name, file in entry.files.items():
        fields = f"url = {_quoted(file.url)}, sha256 = {_quoted(file.sha256)}, size = {file.size}"
        lines.append(f"{_quoted(name)} = {{ {fields} }}")
    text = "\n".join(lines) + "\n"
    _parse(text, entry.origin)
    return text


def _parse(text: str, path: Path) -> dict[str, Entry]:
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # Not only TOMLDecodeError: integers of thousands of digits and deep nesting have errors of their own.
        raise EntryError(f"{path}: not TOML: {error}") from None
    try:
        return {name: _entry(name, fields, path) for name, fields in tables.items()}
    except EntryError as error:
        raise EntryError(f"{path}: {error}") from None


def _entry(name: str, fields: object, path: Path) -> Entry:
    if not _NAME.fullmatch(name):
        raise EntryError(
            f"[{name}]: a name, which becomes that of a folder, may contain letters, digits and . _ - only"
        )
    if not isinstance(fields, dict):
        raise EntryError(f"{name}: must be a table, [{name}]")
    _check_fields(f"[{name}]", fields, _FIELDS, _FIELDS)
    codebooks = fields["codebooks"]
    if not isinstance(codebooks, dict) or not codebooks or not all(_positive(size) for size in codebooks.values()):
        raise EntryError(
            f"[{name}]: codebooks must give each codebook's size, as in {{ primary = 100 }}, got {codebooks!r}"
        )
    files = fields["files"]
    if not isinstance(files, dict):
        raise EntryError(f"[{name}]: files must be a table, [{name}.files], got {files!r}")
    _check_fields(f"[{name}.files]", files, FILES, REQUIRED)
    return Entry(
        name,
        _line(name, "description", fields),
        _line(name, "licence", fields),
        codebooks,
        {file: _file(f"[{name}.files]: {file}", files[file]) for file in FILES if file in files},
        path,
    )


def _file(where: str, fields: object) -> RemoteFile:
    if not isinstance(fields, dict):
        raise EntryError(f"{where}: must be {{ url = ..., sha256 = ..., size = ... }}, got {fields!r}")
    known = ("url", "sha256", "size")
    _check_fields(where, fields, known, known)
    url, sha256, size = (fields[name] for name in known)
    if not isinstance(url, str):
        raise EntryError(f"{where}: url must be text, got {url!r}")
    try:
        _check_url(url)
    except ValueError as error:
        raise EntryError(f"{where}: url {error}") from None
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256.lower()):
        raise EntryError(f"{where}: sha256 must be 64 hexadecimal digits, got {sha256!r}")
    if not _positive(size):
        raise EntryError(f"{where}: size must be the file's size in bytes, above 0, got {size!r}")
    return RemoteFile(url, sha256.lower(), size)


def _check_url(url: str) -> None:
    """Raise ``ValueError`` unless this is an http, https or file address that can be requested."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"{url!r} is not a valid address: {error}") from None
    if parts.scheme not in ("https", "http", "file"):
        raise ValueError(f"{url!r} must begin with https://, http:// or file://")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ValueError(f"{url!r} must be file:// and an absolute path: file:///data/model.safetensors")
    elif not parts.hostname or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{url!r} must name a host and contain only ASCII without spaces; write a space as %20")


def _check_fields(where: str, fields: Mapping[str, Any], known: tuple[str, ...], needed: tuple[str, ...]) -> None:
    for name in fields:
        if name not in known:
            raise EntryError(f"{where}: unknown field {name!r}; known: {', '.join(known)}")
    for name in needed:
        if name not in fields:
            raise EntryError(f"{where}: {name} is missing")


def _line(name: str, field: str, fields: Mapping[str, Any]) -> str:
    value = fields[field]
    if not isinstance(value, str) or not value.strip() or len(value.splitlines()) > 1 or not value.isprintable():
        raise EntryError(f"[{name}]: {field} must be one line of text, got {value!r}")
    return value.strip()


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < _LARGEST


def _quoted(text: str) -> str:
    # TOML has JSON's escapes except surrogate pairs, which ensure_ascii=False avoids.
    return json.dumps(text, ensure_ascii=False)
