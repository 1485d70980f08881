"""The sidecar ``spintok.json`` of an export: which tokens it holds, how they were written, and its files' checksums."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spintok._files import sha256_of, write_text
from spintok.export.errors import ExportError
from spintok.export.source import Header
from spintok.frames import RECEPTIVE_FIELD

__all__ = ["SIDECAR", "check_file", "describe_export", "header_of", "parse_sidecar", "read_sidecar", "write_sidecar"]

SIDECAR = "spintok.json"
LAYOUT = 1
"""The version of the sidecar."""

_FIELDS = {
    "target": str,
    "tokenizer": str,
    "fingerprint": str,
    "codebooks": dict,
    "frame_rate": int,
    "dedup": bool,
    "options": dict,
    "source": str,
    "state": str,
}
_LARGEST = 2**31


def describe_export(header: Header, target: str, source: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the sidecar in which two runs have to agree before one may continue the other.

    Args:
        header: the header of the tokens.
        target: the value of ``--to``.
        source: the digest of the token folders.
        options: the options of the target.
    """
    return {
        "spintok_export": LAYOUT,
        "target": target,
        "tokenizer": header.tokenizer,
        "fingerprint": header.fingerprint,
        "codebooks": dict(header.codebooks),
        "frame_rate": header.frame_rate,
        "dedup": header.dedup,
        **({} if header.receptive_field == RECEPTIVE_FIELD else {"receptive_field": header.receptive_field}),
        "options": json.loads(json.dumps(dict(options))),
        "source": source,
    }


def write_sidecar(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the sidecar atomically."""
    write_text(folder / SIDECAR, json.dumps(content, indent=2) + "\n")


def parse_sidecar(folder: Path) -> dict[str, Any]:
    """The sidecar, whether the export is complete or not.

    Raises ``ExportError`` if there is none, or one that no release of spintok wrote.
    """
    path = folder / SIDECAR
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExportError(f"{folder}: no {SIDECAR}, so this is not an export of spintok") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(f"{path}: damaged ({error})") from None
    if not isinstance(found, dict) or "spintok_export" not in found:
        raise ExportError(f"{path}: not a sidecar of spintok")
    if found["spintok_export"] != LAYOUT:
        raise ExportError(f"{path}: layout {found['spintok_export']!r}, but this release reads {LAYOUT}")
    _check(path, found)
    return found


def read_sidecar(folder: Path) -> dict[str, Any]:
    """The sidecar of a complete export. Raises ``ExportError`` if there is none or files are missing."""
    found = parse_sidecar(folder)
    if found["state"] != "complete":
        raise ExportError(f"{folder}: this export was not finished; run the same spintok export again")
    for name, size in found["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise ExportError(f"{path}: missing or of another size; run the same spintok export again")
    return found


def header_of(description: Mapping[str, Any]) -> Header:
    """The header that ``describe_export`` stored."""
    names = ("tokenizer", "fingerprint", "codebooks", "frame_rate", "dedup")
    return Header(
        **{name: description[name] for name in names},
        receptive_field=description.get("receptive_field", RECEPTIVE_FIELD),
    )


def check_file(folder: Path, description: Mapping[str, Any], path: Path) -> None:
    """Raise ``ExportError`` if a file changed since it was exported. Exports before 0.1.0 have no checksums."""
    expected = description.get("sha256", {}).get(path.relative_to(folder).as_posix())
    if expected is not None and sha256_of(path) != expected:
        raise ExportError(f"{path}: changed since it was exported (wrong checksum); delete it and export again")


def _check(path: Path, found: Mapping[str, Any]) -> None:
    """Raise ``ExportError`` for fields of the wrong type, which only damage or a forgery explains."""
    for name, kind in _FIELDS.items():
        if type(found.get(name)) is not kind:
            raise ExportError(f"{path}: damaged ({name} is {found.get(name)!r:.80})")
    sizes = found["codebooks"].values()
    if not sizes or not all(type(size) is int and 0 < size <= _LARGEST for size in sizes):
        raise ExportError(f"{path}: damaged (codebooks is {found['codebooks']!r:.80})")
    if not 0 < found["frame_rate"] <= _LARGEST:
        raise ExportError(f"{path}: damaged (frame_rate is {found['frame_rate']!r:.80})")
    if found["state"] == "complete":
        for name, kind in (("files", int), ("sha256", str)):
            table = found.get(name, {} if name == "sha256" else None)
            if not isinstance(table, dict) or not all(type(value) is kind for value in table.values()):
                raise ExportError(f"{path}: damaged ({name} is {table!r:.80})")
