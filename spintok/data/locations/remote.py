"""Files of object stores and web servers by fsspec: ``s3://``, ``gs://``, ``hf://``, ``https://`` and others."""

import io
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

from spintok._files import MissingPackageError
from spintok.data.locations.base import LocalAudio, Location, Source, TemporaryCopy, source_from

__all__ = [
    "File",
    "RemoteError",
    "RemoteFile",
    "exists",
    "file_source",
    "file_system",
    "files_below",
    "is_folder",
    "open_file",
    "read_range",
    "retried",
]

T = TypeVar("T")

PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each retry, each made up to half longer at random, so that many workers do not return together."""

_MISSING = (404, 410)
_LATER = (408, 425, 429)
"""Answers of web servers: there is no such file, and try again later."""

PART = 1 << 25
"""Bytes of one request; a larger file is read in several."""

_BUFFER = 1 << 16
"""Bytes that are read at once where a file is read here and there."""

_PACKAGES = {
    "s3": ("s3fs", "'spintok[s3]'"),
    "s3a": ("s3fs", "'spintok[s3]'"),
    "gs": ("gcsfs", "'spintok[gs]'"),
    "gcs": ("gcsfs", "'spintok[gs]'"),
    "hf": ("huggingface_hub", "'spintok[hub]'"),
    "az": ("adlfs", "adlfs"),
    "abfs": ("adlfs", "adlfs"),
}
"""The package of a protocol, and what pip installs it."""

_VERSIONS = (
    "md5Hash", "ETag", "etag", "blob_id", "checksum", "LastModified", "last_modified", "updated", "mtime", "created"
)  # fmt: skip
"""Fields that tell versions of a file apart; stores have different ones. The first is taken that there is."""


class RemoteError(OSError):
    """A store that does not answer as it should, after all retries."""


@lru_cache(1024)
def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the address in its terms.

    Credentials are found as the package of the protocol finds them: environment, files, instance.

    Raises:
        MissingPackageError: the protocol needs a package that is not installed.
        ValueError: an unknown protocol.
    """
    import fsspec

    protocol = url.partition("://")[0]
    try:
        # Listings that are kept would hide what changes.
        filesystem, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        package, install = _PACKAGES.get(protocol, (protocol, protocol))
        raise MissingPackageError(f"{protocol}:// needs {package} ({error}): pip install {install}") from None
    except ValueError as error:
        raise ValueError(f"{url}: {error}; there are s3://, gs://, hf://, https:// and others of fsspec") from None
    if protocol in ("gs", "gcs"):
        # Or it would print a warning for each request without credentials, as to a public bucket.
        logging.getLogger("gcsfs").addHandler(logging.NullHandler())
    return filesystem, str(path).rstrip("/")


def _transient_errors() -> tuple[type[Exception], ...]:
    # Imported once a call has failed, or every `spintok encode` would wait for it.
    import aiohttp

    found: list[type[Exception]] = [OSError, aiohttp.ClientError]
    # Those of packages that are in use and have errors of their own.
    if "botocore.exceptions" in sys.modules:
        botocore = sys.modules["botocore.exceptions"]
        found += [botocore.HTTPClientError, botocore.ConnectionError, botocore.IncompleteReadError]
    if "gcsfs.retry" in sys.modules:
        gcsfs = sys.modules["gcsfs.retry"]
        found += [gcsfs.HttpError, gcsfs.ChecksumError]
    found += [sys.modules[name].HTTPError for name in ("httpx", "httpx2") if name in sys.modules]
    return tuple(found)


def _cause_of(error: Exception) -> Exception:
    """fsspec says that a file of a web server is missing also when the server does not answer, fails or refuses."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or type(cause).__module__.partition(".")[0] != "aiohttp":
        return error
    assert isinstance(cause, Exception)
    return error if getattr(cause, "status", None) in _MISSING else cause


def _status(error: Exception) -> int | None:
    """The status of an answer by HTTP, where an error has it: aiohttp, gcsfs and huggingface_hub differ."""
    if type(error) is OSError and str(error).startswith("Forbidden: "):
        # gcsfs has only these words.
        return 403
    places = (error, "status"), (error, "code"), (getattr(error, "response", None), "status_code")
    return next((found for place, name in places if isinstance(found := getattr(place, name, None), int)), None)


def _is_transient(error: Exception) -> bool:
    status = _status(error)
    refused = status is not None and 400 <= status < 500 and status not in _LATER
    return isinstance(error, _transient_errors()) and not refused


def retried(call: Callable[[], T], name: str) -> T:
    """The result of a call that may fail for a moment: it is repeated after pauses that double.

    Raises:
        FileNotFoundError, FileExistsError, IsADirectoryError, PermissionError: at once, from the first call that
            raises them.
        RemoteError: all tries failed, or one in a way that another cannot mend, such as for want of credentials; the
            message names ``name`` and the last cause.
    """
    for pause in (*PAUSES, None):
        try:
            return call()
        except (FileExistsError, IsADirectoryError, PermissionError, NotImplementedError):
            raise
        except Exception as raised:
            error = _cause_of(raised)
            if isinstance(error, FileNotFoundError):
                raise
            if _status(error) in _MISSING:
                raise FileNotFoundError(name) from None
            cause = " ".join(str(error).split()) or type(error).__name__
            if not _is_transient(error):
                if type(error).__module__ == "builtins" and not isinstance(error, OSError):
                    raise
                raise RemoteError(f"{name}: {cause}") from None
            if pause is None:
                raise RemoteError(f"{name}: {cause} (after {len(PAUSES) + 1} tries)") from None
            time.sleep(pause * random.uniform(1.0, 1.5))
    raise AssertionError


@dataclass(frozen=True)
class RemoteFile(Location):
    """A file by its address.

    Attributes:
        url: the address.
        listed: its source, from the list of its folder, which spares asking for it.
    """

    url: str
    listed: Source | None = field(default=None, compare=False)

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.url.partition("?")[0]).suffix.lower()

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]

    def __str__(self) -> str:
        return self.url

    def source(self) -> Source:
        return self.listed or self.examine()

    def examine(self) -> Source:
        """Its source now. Raises ``OSError``."""
        filesystem, path = file_system(self.url)
        return _source(self.url, retried(lambda: filesystem.info(path), self.url))

    def local(self) -> LocalAudio:
        return TemporaryCopy.of(self.blocks(), self.suffix)

    def blocks(self, start: int = 0, size: int | None = None) -> Iterator[bytes]:
        """``size`` bytes from ``start`` on, by default all, in blocks.

        Raises ``OSError``: ``FileNotFoundError``, ``PermissionError``, or ``RemoteError`` as ``retried`` does, also
        when the file changes meanwhile.
        """
        before = self.examine() if size is None else self.source()
        end = before[0] if size is None else start + size
        for at in range(start, end, PART):
            yield self.read(at, min(PART, end - at))
        if end - start > PART and self.examine() != before:
            raise RemoteError(f"{self.url}: changed while it was read")

    def content(self) -> bytes:
        """All of a small file. Raises ``OSError``."""
        return self.read(0, self.examine()[0])

    def read(self, start: int, size: int) -> bytes:
        """``size`` bytes from ``start`` on. Raises ``OSError``; too few bytes are an error after all retries."""
        filesystem, path = file_system(self.url)
        # Servers of the web need not know ranges, so they are asked for all of the file.
        whole = start == 0 and self.url.startswith("http") and size == self.source()[0]
        part = {} if whole else {"start": start, "end": start + size}

        def get() -> bytes:
            data = bytes(filesystem.cat_file(path, **part))
            if len(data) != size:
                raise OSError(f"{len(data)} of {size} bytes arrived")
            return data

        return retried(get, self.url) if size else b""

    def write(self, data: bytes) -> None:
        """Make or replace the file. Raises ``OSError``."""
        filesystem, path = file_system(self.url)
        retried(lambda: filesystem.pipe_file(path, data), self.url)

    def open(self) -> BinaryIO:
        """A file to be read here and there. Raises ``OSError``."""
        return io.BufferedReader(_Reader(self, self.examine()[0]), _BUFFER)


File = Path | RemoteFile
"""A file in which recordings are: local, or by its address."""


def open_file(file: File) -> BinaryIO:
    """A file to be read here and there. Raises ``OSError``."""
    return file.open("rb") if isinstance(file, Path) else file.open()


def read_range(file: File, start: int, size: int) -> Iterator[bytes]:
    """``size`` bytes of a file from ``start`` on, in blocks; a local one gives fewer at its end. Raises ``OSError``."""
    if isinstance(file, RemoteFile):
        yield from file.blocks(start, size)
        return
    with file.open("rb") as opened:
        opened.seek(start)
        for at in range(0, size, PART):
            yield opened.read(min(PART, size - at))


def file_source(file: File) -> Source:
    """What changes with a file. Raises ``OSError``."""
    if isinstance(file, RemoteFile):
        return file.source()
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def exists(file: File) -> bool:
    """Whether there is such a file. Raises ``OSError`` when its store does not answer."""
    if isinstance(file, Path):
        return file.exists()
    try:
        file.examine()
    except FileNotFoundError:
        return False
    return True


def is_folder(url: str) -> bool:
    """Whether an address is that of a folder. Raises ``OSError``, such as when there is nothing."""
    filesystem, path = file_system(url)
    return bool(retried(lambda: filesystem.info(path), url)["type"] == "directory")


def files_below(url: str) -> dict[str, RemoteFile]:
    """The files at any depth below a folder, by their names below it; none that are hidden, or in hidden folders.

    Raises:
        OSError: there is no such folder, or it cannot be listed.
    """
    filesystem, root = file_system(url)
    # That of the Hub keeps lists all the same.
    filesystem.invalidate_cache()
    # Where a file system has no list of its own, fsspec walks, and would skip folders that it cannot read.
    options = {} if any(name in vars(type(filesystem)) for name in ("find", "_find")) else {"on_error": "raise"}
    entries: Mapping[str, Mapping[str, Any]] = retried(
        lambda: filesystem.find(root, detail=True, **options),
        url,
    )
    base, found = root.rstrip("/") + "/", {}
    for name, info in entries.items():
        below = name.removeprefix(base)
        if below == name or info.get("type") == "directory" or any(p.startswith(".") for p in below.split("/")):
            continue
        address = f"{url.rstrip('/')}/{below}"
        found[below] = RemoteFile(address, _source(address, info))
    if not entries and not retried(lambda: filesystem.exists(root), url):
        raise FileNotFoundError(url)
    return found


def _source(url: str, info: Mapping[str, Any]) -> Source:
    """From what a store says of a file."""
    if info.get("type") == "directory":
        raise IsADirectoryError(f"{url}: is a folder")
    if not isinstance(size := info.get("size"), int):
        raise RemoteError(f"{url}: the server does not say how long the file is, so its end could be missing unnoticed")
    version: object = next((info[name] for name in _VERSIONS if info.get(name)), "")
    # Lists may have times as numbers that are objects in the answer for one file.
    if isinstance(version, datetime):
        version = (version if version.tzinfo else version.replace(tzinfo=UTC)).timestamp()
    return source_from(size, round(version * 1e6) if isinstance(version, int | float) else version)


class _Reader(io.RawIOBase):
    """A remote file as Python's files are."""

    def __init__(self, file: RemoteFile, size: int) -> None:
        self._file = file
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        buffer[:count] = self._file.read(self._at, count)
        self._at += count
        return count
