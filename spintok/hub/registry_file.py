"""Registry files: TOML that says where the files of tokenizers lie, and what they must be."""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["FILES", "REQUIRED", "Entry", "EntryError", "RemoteFile", "read_entries", "write_entry"]

REQUIRED = ("config.json", "model.safetensors")
FILES = (*REQUIRED, "README.md")
"""What a tokenizer's folder may hold: the configuration, the weights, the model card."""

_FIELDS = ("description", "licence", "codebooks", "files")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class EntryError(ValueError):
    """A registry file that cannot be used; the message names the file, the field and the cause."""


@dataclass(frozen=True)
class RemoteFile:
    """A file elsewhere: its address, the SHA-256 of its bytes in hexadecimal, and how many they are."""

    url: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Entry:
    """A tokenizer whose files lie elsewhere.

    Attributes:
        name: what ``spintok.load`` calls it.
        description: one line.
        licence: of the weights, as an SPDX identifier or in words.
        codebooks: K of each codebook, the primary first.
        files: by their names in the tokenizer's folder; ``REQUIRED`` ones are there.
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
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    @property
    def digest(self) -> str:
        """SHA-256 of the files' checksums: entries of one name and other weights differ in it."""
        lines = "".join(f"{name}:{file.sha256}\n" for name, file in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


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
    """The entry as a part of a registry file, which ``read_entries`` reads back.

    Raises:
        EntryError: a field of it cannot be in a registry file.
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
        return {name: _entry(name, fields, path) for name, fields in tomllib.loads(text).items()}
    except tomllib.TOMLDecodeError as error:
        raise EntryError(f"{path}: not TOML: {error}") from None
    except EntryError as error:
        raise EntryError(f"{path}: {error}") from None


def _entry(name: str, fields: object, path: Path) -> Entry:
    if not _NAME.fullmatch(name):
        raise EntryError(f"[{name}]: a name has letters, digits and . _ - only, as it becomes a folder's")
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
        raise EntryError(f"{where}: size must be the file's bytes, a number above 0, got {size!r}")
    return RemoteFile(url, sha256.lower(), size)


def _check_url(url: str) -> None:
    """Raise ``ValueError`` unless the address can be downloaded from."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"{url!r} is no address: {error}") from None
    if parts.scheme not in ("https", "http", "file"):
        raise ValueError(f"{url!r} must begin with https://, http:// or file://")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ValueError(f"{url!r} must be file:// and an absolute path: file:///data/model.safetensors")
    elif not parts.hostname or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{url!r} must name a host, and have neither spaces nor letters beyond ASCII: write %20")


def _check_fields(where: str, fields: Mapping[str, Any], known: tuple[str, ...], needed: tuple[str, ...]) -> None:
    for name in fields:
        if name not in known:
            raise EntryError(f"{where}: unknown field {name!r}; known: {', '.join(known)}")
    for name in needed:
        if name not in fields:
            raise EntryError(f"{where}: {name} is missing")


def _line(name: str, field: str, fields: Mapping[str, Any]) -> str:
    value = fields[field]
    if not isinstance(value, str) or not value.strip() or len(value.splitlines()) > 1:
        raise EntryError(f"[{name}]: {field} must be one line of text, got {value!r}")
    return value.strip()


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _quoted(text: str) -> str:
    # Of JSON's escapes TOML knows all but the pairs of surrogates, which ensure_ascii=False leaves out.
    return json.dumps(text, ensure_ascii=False)
