"""Where the shards of many workers meet: a folder, which all hosts mount, or an object store.

Workers agree through one operation: ``create`` makes a file unless it exists, and of any number of callers one
succeeds. On a file system that is a hard link to a complete temporary file, which NFS also makes atomically; on an
object store it is a conditional PUT.
"""

import errno
import hashlib
import os
import secrets
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from spintok._files import atomic, sha256_of, sync_folder
from spintok.corpus.folder import WORK
from spintok.data.locations.base import is_url
from spintok.data.locations.remote import RemoteFile, file_system, retried

__all__ = ["GONE", "FolderStore", "ObjectStore", "Store", "open_store"]

T = TypeVar("T")

_CONDITIONAL = ("s3", "s3a", "gs", "gcs")
"""Protocols whose stores make an object only if none has its name, in one request."""

GONE = (errno.ENOENT, errno.ESTALE)
"""What a file says that was deleted or replaced since it was listed or opened; on NFS by another host."""


class Store(ABC):
    """Files by name; a name may have folders, as in ``.work/leases/00007.1``.

    Attributes:
        name: the name in messages.
    """

    name: str

    @property
    def exclusive(self) -> bool:
        """Whether ``create`` is atomic, without which there are no leases."""
        return True

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Make a file; False, and nothing changes, when there is one of that name."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Make or replace a file; readers see all of it or none."""

    @abstractmethod
    def grow(self, name: str, size: int) -> bool:
        """Set the size of a small file; False where the store can tell that it is gone."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """The contents of a file; None when there is none."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is such a file."""

    @abstractmethod
    def sizes(self, folder: str = "") -> dict[str, int]:
        """The size of each file directly in a folder, by its name in the folder."""

    @abstractmethod
    def delete(self, *names: str) -> None:
        """Delete files; those that are not there are none's concern."""

    @abstractmethod
    def publish(self, path: Path) -> None:
        """Move a complete local file to the store under its own name."""

    @abstractmethod
    def fetch(self, name: str, folder: Path) -> Path:
        """A local file with these contents: the file itself, or a copy in ``folder``."""

    @abstractmethod
    def workspace(self, shard: str, worker: str) -> Any:
        """A context with a local folder in which a worker makes a shard; it is deleted when the block succeeds."""

    @abstractmethod
    def earlier(self, shard: str) -> list[Path]:
        """Shards, perhaps unfinished, that other workers left in their workspaces; only to be read."""

    @abstractmethod
    def reopen(self, files: Sequence[str], record: str) -> None:
        """Unfinish a shard by deleting its record; where it can be, what it holds is kept for whoever continues it."""

    @abstractmethod
    def clear(self, shard: str) -> None:
        """Delete the workspaces of a finished shard."""


class FolderStore(Store):
    """A folder that is mounted on all hosts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = str(folder)
        (folder / WORK / "leases").mkdir(parents=True, exist_ok=True)

    def create(self, name: str, data: bytes) -> bool:
        path = self.folder / name
        temporary = self.folder / WORK / f".new-{secrets.token_hex(8)}"
        try:
            temporary.write_bytes(data)
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                raise
            # No hard links here (FAT, some FUSE): an exclusive open is atomic too, but its data come after it.
            try:
                with path.open("xb") as file:
                    file.write(data)
            except FileExistsError:
                return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def write(self, name: str, data: bytes) -> None:
        # What a killed worker leaves must not stay among the shards.
        with atomic(self.folder / name, scratch=self.folder / WORK) as temporary:
            temporary.write_bytes(data)

    def grow(self, name: str, size: int) -> bool:
        try:
            _by_name(lambda: os.truncate(self.folder / name, size))
        except FileNotFoundError:
            return False
        return True

    def read(self, name: str) -> bytes | None:
        try:
            return _by_name((self.folder / name).read_bytes)
        except FileNotFoundError:
            return None

    def exists(self, name: str) -> bool:
        return _by_name((self.folder / name).exists)

    def sizes(self, folder: str = "") -> dict[str, int]:
        found = {}
        with os.scandir(self.folder / folder) as entries:
            for entry in entries:
                try:
                    if entry.is_file():
                        found[entry.name] = entry.stat().st_size
                except OSError as error:
                    if error.errno not in GONE:
                        raise
        return found

    def delete(self, *names: str) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def publish(self, path: Path) -> None:
        path.replace(self.folder / path.name)
        sync_folder(self.folder)

    def fetch(self, name: str, folder: Path) -> Path:
        return self.folder / name

    @contextmanager
    def workspace(self, shard: str, worker: str) -> Iterator[Path]:
        folder = self._subfolder(shard, worker)
        yield folder
        _remove(folder)

    def _subfolder(self, *names: str) -> Path:
        """A folder for work in progress. The output itself is not made anew: it may be a disk that was unmounted."""
        folder = self.folder
        for name in (WORK, *names):
            folder /= name
            folder.mkdir(exist_ok=True)
        return folder

    def earlier(self, shard: str) -> list[Path]:
        left = self.folder / WORK / shard
        return [self.folder / shard, *(folder / shard for folder in sorted(left.glob("*")))]

    def reopen(self, files: Sequence[str], record: str) -> None:
        kept = self._subfolder(files[-1], "reopened")
        for name in (*files, record):
            with suppress(FileNotFoundError):
                shutil.copy2(self.folder / name, kept / name)
        self.delete(record)

    def clear(self, shard: str) -> None:
        _remove(self.folder / WORK / shard)


class ObjectStore(Store):
    """A folder of an object store: ``s3://bucket/folder``, ``gs://``, ``hf://``, and others that fsspec knows.

    A PUT is atomic, and what was written is read back and compared. Unfinished shards are in temporary folders of their
    hosts, so a killed worker loses its shard.
    """

    def __init__(self, url: str) -> None:
        self.name = url.rstrip("/")
        self._fs, self._root = file_system(self.name)

    @cached_property
    def exclusive(self) -> bool:
        """Tried out once, with a file of its own: some servers of S3 ignore the condition of a PUT."""
        if self.name.partition("://")[0] not in _CONDITIONAL:
            return False
        probe = f"{WORK}/probe-{secrets.token_hex(8)}"
        try:
            return self.create(probe, b"first") and not self.create(probe, b"second")
        finally:
            self.delete(probe)

    def create(self, name: str, data: bytes) -> bool:
        tried = 0

        def put() -> bool:
            nonlocal tried
            tried += 1
            try:
                self._fs.pipe_file(self._path(name), data, mode="create")
            except OSError as error:
                if not _exists(error):
                    raise
                # The answer to an earlier try may have been lost; who made the file tells its content.
                return tried > 1 and self.read(name) == data
            return True

        return bool(retried(put, f"{self.name}/{name}"))

    def write(self, name: str, data: bytes) -> None:
        def put() -> None:
            self._fs.pipe_file(self._path(name), data)
            self._compare(name, hashlib.sha256(data).hexdigest())

        retried(put, f"{self.name}/{name}")

    def grow(self, name: str, size: int) -> bool:
        retried(lambda: self._fs.pipe_file(self._path(name), b"." * size), f"{self.name}/{name}")
        return True

    def read(self, name: str) -> bytes | None:
        try:
            return bytes(retried(lambda: self._fs.cat_file(self._path(name)), f"{self.name}/{name}"))
        except FileNotFoundError:
            return None

    def exists(self, name: str) -> bool:
        self._fs.invalidate_cache()
        return bool(retried(lambda: self._fs.exists(self._path(name)), f"{self.name}/{name}"))

    def sizes(self, folder: str = "") -> dict[str, int]:
        path = self._path(folder).rstrip("/")

        def listing() -> list[dict[str, Any]]:
            self._fs.invalidate_cache()
            return list(self._fs.ls(path, detail=True))

        try:
            entries = retried(listing, f"{self.name}/{folder}")
        except FileNotFoundError:
            return {}
        return {entry["name"].rpartition("/")[2]: entry["size"] for entry in entries if entry["type"] == "file"}

    def delete(self, *names: str) -> None:
        for name in names:
            try:
                retried(lambda name=name: self._fs.rm_file(self._path(name)), f"{self.name}/{name}")  # type: ignore[misc]
            except FileNotFoundError:
                continue

    def publish(self, path: Path) -> None:
        def put() -> None:
            self._fs.put_file(str(path), self._path(path.name))
            self._compare(path.name, sha256_of(path))

        retried(put, f"{self.name}/{path.name}")
        path.unlink()

    def _compare(self, name: str, sha256: str) -> None:
        """Read back what was written: bytes that were lost or damaged on their way must not go unnoticed."""
        with RemoteFile(f"{self.name}/{name}").open() as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        if found != sha256:
            raise OSError("other bytes are there than were written")

    def fetch(self, name: str, folder: Path) -> Path:
        copy = folder / name
        copy.write_bytes(retried(lambda: self._fs.cat_file(self._path(name)), f"{self.name}/{name}"))
        return copy

    @contextmanager
    def workspace(self, shard: str, worker: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="spintok-") as folder:
            yield Path(folder)

    def earlier(self, shard: str) -> list[Path]:
        return []

    def reopen(self, files: Sequence[str], record: str) -> None:
        self.delete(record)

    def clear(self, shard: str) -> None:
        pass

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _remove(folder: Path) -> None:
    """Delete a folder as far as it can be, beside others who do the same."""
    # rmtree does not ignore all errors: on NFS the folder may go while it is looked at.
    with suppress(OSError):
        shutil.rmtree(folder, ignore_errors=True)


def _by_name(call: Callable[[], T]) -> T:
    """The result of a call that opens a file by its name, again when another host has replaced that file meanwhile."""
    for pause in (0.0, 0.1, 0.3, 1.0):
        try:
            return call()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            time.sleep(pause)
    return call()


def open_store(output: str | os.PathLike[str]) -> Store:
    """The store of an output folder or URL."""
    return ObjectStore(os.fspath(output)) if is_url(output) else FolderStore(Path(output))


def _exists(error: OSError) -> bool:
    """Whether a conditional PUT was refused because there is an object; s3fs hands on S3's own error."""
    return isinstance(error, FileExistsError) or "PreconditionFailed" in str(error)
