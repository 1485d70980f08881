"""The cache of downloaded tokenizers: its folders, and the download of missing files with checksums."""

import hashlib
import os
from pathlib import Path

from filelock import FileLock

from spintok.hub.registry_file import Entry
from spintok.progress import Progress, no_progress

__all__ = ["DownloadError", "cache_root", "fetch", "folder_of", "is_cached", "is_offline", "sha256_of"]


class DownloadError(ValueError):
    """A file that cannot be downloaded; the message is one line with its address, the cause, and what to do."""


def is_offline() -> bool:
    """Whether the environment variable SPINTOK_OFFLINE forbids downloads. Raises ``ValueError``."""
    value = os.environ.get("SPINTOK_OFFLINE", "").strip().lower()
    if value not in ("", "0", "1", "false", "true", "no", "yes"):
        raise ValueError(f"SPINTOK_OFFLINE must be 1 or 0, got {value!r}")
    return value in ("1", "true", "yes")


def cache_root() -> Path:
    """The folder that SPINTOK_CACHE names, by default ``~/.cache/spintok``."""
    if given := os.environ.get("SPINTOK_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spintok"


def folder_of(entry: Entry) -> Path:
    """The entry's folder in the cache: ``NAME-<checksum>``.

    The checksum is that of the files, so weights that changed under the same name get another folder.
    """
    return cache_root() / f"{entry.name}-{entry.digest[:12]}"


def is_cached(entry: Entry) -> bool:
    """Whether all files of the entry exist with their sizes; ``fetch`` checks what they contain."""
    folder = folder_of(entry)
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == file.size for name, file in entry.files.items()
    )


def fetch(entry: Entry, *, offline: bool = False, progress: Progress = no_progress) -> Path:
    """The folder with the entry's files: each is checked by its SHA-256, and missing ones are downloaded.

    Of several processes that fetch the same entry, one downloads and the others wait. A file that was copied there
    by hand is as good as a downloaded one.

    Args:
        entry: a tokenizer of a registry file.
        offline: download nothing.
        progress: called with ``NAME/FILE`` and the file's bytes.

    Raises:
        DownloadError: a file is missing and cannot be downloaded.
    """
    folder = folder_of(entry)
    missing = _missing(entry, folder)
    if not missing:
        return folder
    if offline:
        files = " and ".join(f"{entry.files[name].url} as {folder / name}" for name in missing)
        raise DownloadError(
            f"tokenizer {entry.name!r} is not complete in the cache, and --offline or SPINTOK_OFFLINE forbids "
            f"downloads; run `spintok download {entry.name}` where there is a network, or copy the files by hand: "
            f"{files}"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            # Another process may have downloaded them while this one waited for the lock.
            for name in _missing(entry, folder):
                _fetch_file(entry, folder, name, progress)
    except OSError as error:
        raise DownloadError(
            f"{folder}: cannot store the tokenizer {entry.name!r} there ({error.strerror or error}); set "
            "SPINTOK_CACHE to another folder"
        ) from None
    return folder


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch_file(entry: Entry, folder: Path, name: str, progress: Progress) -> None:
    # Importing aiohttp takes time, and most calls download nothing.
    from spintok.hub.transport import TransportError, receive

    file, path, partial = entry.files[name], folder / name, folder / f".{name}.part"
    if partial.exists() and partial.stat().st_size > file.size:
        partial.unlink()
    resumed = partial.exists()
    try:
        while True:
            receive(file.url, partial, file.size, lambda done: progress(f"{entry.name}/{name}", done, file.size))
            found = sha256_of(partial)
            if found == file.sha256:
                break
            partial.unlink()
            if not resumed:
                raise TransportError(
                    f"wrong checksum: the file's sha256 is {found}, and {file.sha256} was expected, so it was changed "
                    "at its source or damaged on the way"
                )
            # The bytes that an earlier run left may be those of another file.
            resumed = False
    except TransportError as error:
        raise DownloadError(
            f"tokenizer {entry.name!r}: {file.url}: {error}. Check the network and the entry in {entry.origin}, then "
            f"run the command again, or copy the file by hand: {path}"
        ) from None
    with partial.open("rb+") as stored:
        os.fsync(stored.fileno())
    partial.replace(path)


def _missing(entry: Entry, folder: Path) -> list[str]:
    """The files that do not exist, or differ from what the entry says."""
    return [
        name
        for name, file in entry.files.items()
        if not (folder / name).is_file()
        or (folder / name).stat().st_size != file.size
        or sha256_of(folder / name) != file.sha256
    ]
