"""The folder of an export and its sidecar, ``spintok.json``: whose tokens, which target, whole or not."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from spintok._files import atomic
from spintok.export.errors import ExportError
from spintok.export.source import Header

__all__ = ["SIDECAR", "begin", "describe_export", "finish", "header_of", "read_sidecar", "text_files"]

SIDECAR = "spintok.json"
LAYOUT = 1
"""The version of the sidecar."""

OURS = ("tokens*", "shar/*", "train.*", "validation.*", "utterances.jsonl", "dict.km.txt", "bpe*/*", "*.spintok.json")
"""What exports are made of."""

_MISMATCH = {
    "fingerprint": "the tokens of another tokenizer",
    "target": "another target",
    "codebooks": "other codebooks",
    "source": "tokens of another source, or of one that has changed since",
    "dedup": "tokens with another setting of --dedup",
    "options": "an export with other options",
}


def describe_export(header: Header, target: str, source: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs into one folder must have in common."""
    return {
        "spintok_export": LAYOUT,
        "target": target,
        "tokenizer": header.tokenizer,
        "fingerprint": header.fingerprint,
        "codebooks": dict(header.codebooks),
        "frame_rate": header.frame_rate,
        "dedup": header.dedup,
        "options": json.loads(json.dumps(dict(options))),
        "source": source,
    }


def begin(folder: Path, description: Mapping[str, Any], *, overwrite: bool = False) -> bool:
    """Make the folder this run's; True when it holds the whole export already.

    Raises ``ExportError`` when it holds another export, or files of someone else's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sidecar = folder / SIDECAR
    if sidecar.exists():
        found = _read(sidecar)
        different = [what for name, what in _MISMATCH.items() if found.get(name) != description[name]]
        if different and not overwrite:
            raise ExportError(f"{folder}: holds {different[0]}; name another output folder, or add --overwrite")
        if not different and not overwrite and _whole(folder, found):
            return True
        if overwrite:
            _clear(folder, found)
    elif any(not path.name.endswith(".tmp") for path in folder.iterdir()):
        raise ExportError(f"{folder}: not empty, and not an export of spintok's; name another output folder")
    # A killed run leaves its temporary files.
    for path in list(folder.rglob(".*.tmp")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    _write(sidecar, {**description, "state": "writing"})
    return False


def finish(folder: Path, description: Mapping[str, Any], files: list[Path], **counts: int) -> None:
    """Mark the export as whole."""
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    _write(folder / SIDECAR, {**description, **counts, "files": sizes, "state": "complete"})


def read_sidecar(folder: Path) -> dict[str, Any]:
    """The sidecar of a whole export. Raises ``ExportError`` when there is none or a run did not finish."""
    found = _read(folder / SIDECAR)
    if not _whole(folder, found):
        raise ExportError(f"{folder}: this export was not finished; run the same spintok export again")
    return found


def header_of(description: Mapping[str, Any]) -> Header:
    """The header that ``describe_export`` wrote down."""
    names = ("tokenizer", "fingerprint", "codebooks", "frame_rate", "dedup")
    return Header(**{name: description[name] for name in names})


@contextmanager
def text_files(*paths: Path) -> Iterator[list[IO[str]]]:
    """Text files to write, which appear under their names together, when the block ends well."""
    with ExitStack() as stack:
        temporary = [stack.enter_context(atomic(path)) for path in paths]
        files = ExitStack()
        with files:
            yield [files.enter_context(path.open("w", encoding="utf-8", newline="\n")) for path in temporary]


def _read(sidecar: Path) -> dict[str, Any]:
    try:
        found = json.loads(sidecar.read_text(encoding="utf-8"))
        if found["spintok_export"] != LAYOUT:
            raise ExportError(f"{sidecar}: layout {found['spintok_export']!r}; this release reads {LAYOUT}")
        return dict(found)
    except FileNotFoundError:
        raise ExportError(f"{sidecar.parent}: no {SIDECAR}, so this is not an export of spintok's") from None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ExportError):
            raise
        raise ExportError(f"{sidecar}: damaged ({error!r})") from None


def _write(sidecar: Path, content: Mapping[str, Any]) -> None:
    with atomic(sidecar) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _whole(folder: Path, found: Mapping[str, Any]) -> bool:
    if found.get("state") != "complete":
        return False
    paths = {folder / name: size for name, size in found["files"].items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())


def _clear(folder: Path, found: Mapping[str, Any]) -> None:
    """Delete what an earlier export wrote here, and nothing else."""
    names = set(found.get("files", ()))
    # A run that did not finish left no list.
    for pattern in OURS:
        names |= {path.relative_to(folder).as_posix() for path in folder.glob(pattern)}
    for name in names:
        (folder / name).unlink(missing_ok=True)
