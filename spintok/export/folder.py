"""The folder of an export: new, to resume, to replace, or complete; and what may be deleted in it."""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from spintok._files import atomic, lock, remove_orphans, sha256_of, write_text
from spintok.corpus.dataset_card import card_header
from spintok.export.errors import ExportError
from spintok.export.sidecar import SIDECAR, parse_sidecar, write_sidecar

__all__ = ["find_export", "finish", "text_files", "writing"]

CARD, LOCK = "README.md", ".lock"

_OURS = re.compile(
    r"""tokens(-\d+)?\.(jsonl|txt|durations\.txt|tsv|km|npz|parquet|tar)
    | (tokens|train|validation)(\.(durations|utterances|loss|positions))?\.(bin|idx)
    | dict\.km\.txt | utterances\.jsonl | report\.json | vocabulary\.spintok\.json | README\.md
    | shar/\w+\.\d+\.(tar|jsonl\.gz) | bpe(-\d+)?/(tokenizer|bpe\.spintok)\.json""",
    re.VERBOSE,
)
"""The names of all files that any export writes, relative to its folder. Nothing else is ever deleted."""

_MISMATCH = {
    "fingerprint": "the tokens of another tokenizer",
    "target": "another target",
    "codebooks": "other codebooks",
    "source": "tokens of another source, or of one that has changed since",
    "dedup": "tokens with another setting of --dedup",
    "options": "an export with other options",
}


def find_export(folder: Path, description: Mapping[str, Any], *, overwrite: bool = False) -> dict[str, Any] | None:
    """The sidecar, if ``folder`` holds exactly this export and complete; None if it has to be written.

    A complete export with another description is deleted if ``overwrite`` is set, an unfinished one always: the run
    that left it failed, and its command was corrected. Of this export, files that have another size are deleted.

    Args:
        folder: the folder of the export; it need not exist.
        description: the description of the export, from ``describe_export``.
        overwrite: delete an earlier export.

    Raises:
        ExportError: the folder holds another complete export, or files that are not spintok's.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise ExportError(f"{folder}: not a folder; name another output folder")
    if not (folder / SIDECAR).exists():
        if any(not _is_temporary(path) for path in folder.iterdir()):
            raise ExportError(f"{folder}: not empty, and not an export of spintok; name another output folder")
        return None
    found = parse_sidecar(folder)
    complete = found["state"] == "complete"
    different = [what for name, what in _MISMATCH.items() if found[name] != description[name]]
    if complete and different and not overwrite:
        raise ExportError(f"{folder}: holds {different[0]}; name another output folder, or add --overwrite")
    if different or overwrite:
        _delete(folder, found["files"] if complete else _files_below(folder))
        return None
    if not complete:
        return None
    changed = [name for name, size in found["files"].items() if _size(folder / name) != size]
    _delete(folder, changed)
    return None if changed else found


@contextmanager
def writing(folder: Path, description: Mapping[str, Any]) -> Iterator[None]:
    """Mark ``folder`` as this unfinished export while the block runs; the block calls ``finish`` at its end.

    If the block fails before any file is complete, the folder is left as it was. Otherwise the same export can be
    resumed. Raises ``ExportError`` if another process is writing the folder.
    """
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with lock(folder / LOCK):
            _remove_temporary(folder)
            write_sidecar(folder, {**description, "state": "writing"})
            try:
                yield
            except BaseException:
                if not _files_below(folder):
                    (folder / SIDECAR).unlink(missing_ok=True)
                    _remove_empty(folder / "shar")
                raise
    except BlockingIOError:
        raise ExportError(f"{folder}: another process is exporting to this folder") from None
    finally:
        if created:
            _remove_empty(folder)


def finish(
    folder: Path, description: Mapping[str, Any], files: Sequence[Path], *, data_files: str | None = None, **counts: int
) -> list[Path]:
    """Mark the export as complete, and return its files.

    Args:
        folder: the folder of the export.
        description: the description of the export, from ``describe_export``.
        files: all files that the export consists of.
        data_files: the pattern of those that ``datasets.load_dataset(folder)`` shall open: a README.md, the data set
            card, says so. Without one, ``datasets`` would open the sidecar.
        counts: added to the sidecar.
    """
    files = list(files)
    if data_files is not None:
        write_text(folder / CARD, _card(description, data_files, counts))
        files.append(folder / CARD)
    names = {path.relative_to(folder).as_posix(): path for path in files}
    write_sidecar(
        folder,
        {
            **description,
            **counts,
            "files": {name: path.stat().st_size for name, path in names.items()},
            "sha256": {name: sha256_of(path) for name, path in names.items()},
            "state": "complete",
        },
    )
    return files


@contextmanager
def text_files(*paths: Path) -> Iterator[list[IO[str]]]:
    """Open text files for writing; all appear under their names when the block ends without an exception."""
    with ExitStack() as stack:
        temporary = [stack.enter_context(atomic(path)) for path in paths]
        with ExitStack() as files:
            yield [
                # File names that are not UTF-8 have surrogates in Python.
                files.enter_context(path.open("w", encoding="utf-8", errors="surrogateescape", newline="\n"))
                for path in temporary
            ]


def _card(description: Mapping[str, Any], data_files: str, counts: Mapping[str, int]) -> str:
    kind = "de-duplicated, with durations" if description["dedup"] else "one per frame"
    name = " ".join(description["tokenizer"].split()).replace("`", "'")
    numbers = ", ".join(f"{count:,} {what}" for what, count in counts.items())
    return (
        f"{card_header(data_files)}\n# Speech tokens for {description['target']}\n\n{numbers}, {kind}.\n\n"
        f"Tokenizer: `{name}`, fingerprint `{description['fingerprint']}`; {description['frame_rate']} frames a "
        "second.\n\nWritten by `spintok export`. `spintok.json` has all settings and the checksums of the files.\n"
    )


def _files_below(folder: Path) -> list[str]:
    """The names of the complete files that exports write, in a folder that has no list of them."""
    below = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    # A card without a list that names it may be the user's; it is overwritten at the end.
    return [name for name in below if _OURS.fullmatch(name) and name != CARD]


def _delete(folder: Path, names: Sequence[str] | Mapping[str, Any]) -> None:
    """Delete those of the files that an export writes and that are inside ``folder``; names may be forged."""
    inside = folder.resolve()
    for name in names:
        path = folder / name
        if _OURS.fullmatch(name) and path.parent.resolve().is_relative_to(inside):
            path.unlink(missing_ok=True)


def _remove_temporary(folder: Path) -> None:
    """Delete what killed processes left. The lock is held, so no running process uses any of it."""
    remove_orphans(folder)
    for path in folder.glob(".*.tmp"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
    if (folder / "shar").is_dir():
        remove_orphans(folder / "shar")


def _remove_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _is_temporary(path: Path) -> bool:
    return path.name == LOCK or (path.name.startswith(".") and path.name.endswith(".tmp"))


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
