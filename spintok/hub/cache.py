"""The folder where downloaded tokenizers are kept."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spintok.hub.download import DownloadError, Progress, download, sha256_of
from spintok.hub.registry_file import Entry

__all__ = ["fetch", "folder_of", "is_cached", "is_offline"]


def is_offline() -> bool:
    """Whether the environment variable SPINTOK_OFFLINE forbids downloads. Raises ``ValueError``."""
    value = os.environ.get("SPINTOK_OFFLINE", "").strip().lower()
    if value not in ("", "0", "1", "false", "true", "no", "yes"):
        raise ValueError(f"SPINTOK_OFFLINE must be 1 or 0, got {value!r}")
    return value in ("1", "true", "yes")


def folder_of(entry: Entry) -> Path:
    """Where the entry's files are kept: below SPINTOK_CACHE, by default ``~/.cache/spintok``, as ``NAME-<checksum>``.

    The checksum is that of the files, so other weights of the same name lie elsewhere.
    """
    if given := os.environ.get("SPINTOK_CACHE"):
        root = Path(given)
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spintok"
    return root / f"{entry.name}-{entry.digest[:12]}"


def is_cached(entry: Entry) -> bool:
    """Whether all files are there, by their sizes; ``fetch`` reads them."""
    folder = folder_of(entry)
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == file.size for name, file in entry.files.items()
    )


def fetch(entry: Entry, *, offline: bool = False, progress: Progress | None = None) -> Path:
    """The folder with the entry's files, each checked by its SHA-256; those that lack are downloaded.

    Processes that ask for the same entry take turns, and only the first downloads. A file that was put there by hand
    is as good as a downloaded one.

    Args:
        entry: which tokenizer.
        offline: download nothing.
        progress: called while files come.

    Raises:
        DownloadError: a file cannot be had; one line that says how to mend it.
    """
    folder = folder_of(entry)
    missing = _missing(entry, folder)
    if not missing:
        return folder
    if offline:
        files = " and ".join(f"{entry.files[name].url} as {folder / name}" for name in missing)
        raise DownloadError(
            f"tokenizer {entry.name!r} is not whole in the cache, and --offline or SPINTOK_OFFLINE forbids downloads; "
            f"run `spintok download {entry.name}` where there is a network, or put there by hand: {files}"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / ".lock") as alone:
            # Another process may have brought them meanwhile.
            for name in _missing(entry, folder):
                _fetch_file(entry, folder, name, alone, progress)
    except OSError as error:
        raise DownloadError(
            f"{folder}: tokenizer {entry.name!r} cannot be kept there ({error.strerror}); name another folder in "
            "SPINTOK_CACHE"
        ) from None
    return folder


def _fetch_file(entry: Entry, folder: Path, name: str, alone: bool, progress: Progress | None) -> None:
    file, path = entry.files[name], folder / name
    # Without a lock, each process gathers its own bytes, and the last one's take the name.
    partial = folder / (f".{name}.part" if alone else f".{name}.{os.getpid()}.part")
    told = None if progress is None else lambda done: progress(f"{entry.name}/{name}", done, file.size)
    try:
        download(file.url, path, partial, sha256=file.sha256, size=file.size, progress=told)
    except DownloadError as error:
        raise DownloadError(
            f"tokenizer {entry.name!r}: {error}. Check the network and the entry in {entry.origin}, and run it "
            f"again, or put the file there by hand: {path}"
        ) from None
    finally:
        if not alone:
            partial.unlink(missing_ok=True)


def _missing(entry: Entry, folder: Path) -> list[str]:
    """The files that are not there, or not what the entry says."""
    return [
        name
        for name, file in entry.files.items()
        if not (folder / name).is_file()
        or (folder / name).stat().st_size != file.size
        or sha256_of(folder / name) != file.sha256
    ]


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Wait until no other process is in here; False where the system or the file system has no locks.

    The lock goes with the process that holds it, however that ends; its file stays.
    """
    try:
        import fcntl
    except ImportError:
        yield False
        return
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.1)
            except OSError:
                yield False
                return
            else:
                break
        yield True
