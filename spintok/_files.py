"""Files: atomic writes, locks, checksums, JSON lines, and imports of optional packages."""

import errno
import hashlib
import importlib
import json
import os
import re
import secrets
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = [
    "MissingPackageError",
    "atomic",
    "check_target",
    "digest",
    "encodable",
    "json_line",
    "lock",
    "open_locked",
    "read_json_lines",
    "remove_orphans",
    "require",
    "sha256_of",
    "sync_folder",
    "write_text",
]

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# Windows has no flock.
fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}
"""What ``flock`` reports on file systems without locks."""


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What writing reports without the name of the file."""


class MissingPackageError(ImportError, ValueError):
    """An optional package is not installed or cannot be imported; the message says how to install it."""


@contextmanager
def atomic(path: Path, *, scratch: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path; when the block ends without an exception, it replaces ``path`` and is on disk.

    The temporary file is beside ``path``, or in ``scratch`` on the same disk, under a random name, is created
    exclusively (an existing file or link is never followed), and stays locked while the block runs, so that
    ``remove_orphans`` can tell it from one that a killed process left.
    """
    temporary, descriptor = _create(path, path.parent if scratch is None else scratch)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        if error.filename is None and error.errno in _FULL:
            raise type(error)(error.errno, error.strerror, os.fspath(path)) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)
        if descriptor is not None:
            os.close(descriptor)


def check_target(path: Path) -> None:
    """Raise ``OSError`` if no file can be written to ``path``, as it is a folder or lies in none."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file to write", os.fspath(path))
    if not path.parent.exists():
        raise FileNotFoundError(errno.ENOENT, "no such folder", os.fspath(path.parent))


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(text.encode())


def remove_orphans(folder: Path) -> None:
    """Delete the temporary files in ``folder`` that ``atomic`` left in killed processes.

    Files that a running process is writing are locked and stay, and so does everything on a file system without locks.
    """
    for path in folder.glob(".*.tmp"):
        try:
            descriptor = os.open(path, os.O_RDWR | _NO_LINK)
        except OSError:
            continue
        try:
            if _try_lock(descriptor) and _is_at(descriptor, path):
                path.unlink()
        except OSError:
            pass
        finally:
            os.close(descriptor)


@contextmanager
def lock(path: Path, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold an advisory lock on the file ``path`` while the block runs.

    Any number of processes can hold it ``shared``, or one alone. The lock ends with the process that holds it,
    however that ends. The file is created when it is missing, and the last holder deletes it. On a file system
    without locks this only warns.

    Raises:
        BlockingIOError: another process holds the lock, and ``wait`` is false.
    """
    while True:
        try:
            descriptor = open_locked(path, shared=shared)
            break
        except BlockingIOError:
            if not wait:
                raise
            time.sleep(0.05)
    try:
        yield
    finally:
        with suppress(OSError):
            if _try_lock(descriptor) and _is_at(descriptor, path):
                path.unlink()
        os.close(descriptor)


def open_locked(path: Path, *, shared: bool = False) -> int:
    """Open a file for reading and appending, create it when it is missing, and lock it as long as it is open.

    Returns the descriptor. Links are not followed.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _NO_LINK, 0o666)
        try:
            if not _try_lock(descriptor, shared=shared):
                warnings.warn(f"{path.parent}: this file system has no locks: run one process at a time", stacklevel=3)
        except BaseException:
            os.close(descriptor)
            raise
        # Its last holder may have deleted the file after it was opened here.
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(rows: Iterable[Sequence[str]]) -> str:
    """The SHA-256 of a table of strings: cells separated by tabs, rows by newlines. Names need not be valid UTF-8."""
    text = "\n".join("\t".join(row) for row in rows)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def encodable(text: str) -> bool:
    """Whether a string can be encoded in UTF-8; file names that are not UTF-8 have lone surrogates in Python."""
    return _LONE_SURROGATE.search(text) is None


def json_line(value: Any) -> str:
    """``value`` as one line of JSON, ending in a newline; it can be encoded in UTF-8 whatever strings it holds."""
    line = json.dumps(value, ensure_ascii=False)
    if not encodable(line):
        line = json.dumps(value)
    return line + "\n"


def read_json_lines(path: Path) -> Iterator[Any]:
    r"""The values of a file with one JSON value per line; only "\n" ends a line.

    ``str.splitlines`` would also split at U+2028 and others, which JSON strings may contain.

    Raises:
        ValueError: a line is not JSON in UTF-8; the message names the file and the line.
    """
    number = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}:{number}: not JSON ({error})") from None
            yield value


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: its full name, such as "pyarrow.parquet".
        extra: the extra of spintok that installs it.
        purpose: what needs it, for the message.

    Raises:
        MissingPackageError: it cannot be imported.
    """
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingPackageError(f"{purpose} needs {package} ({error}): pip install 'spintok[{extra}]'") from None


def _create(path: Path, folder: Path) -> tuple[Path, int | None]:
    """A new, empty temporary file in ``folder`` for ``path``, and the open descriptor that keeps it locked."""
    check_target(path)
    while True:
        temporary = folder / f".{path.name}.{secrets.token_hex(8)}.tmp"
        try:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except OSError as error:
            # Nobody has heard of the temporary file.
            raise type(error)(error.errno, error.strerror, os.fspath(path)) from None
        if fcntl is None:
            # Windows cannot rename a file that is open.
            os.close(descriptor)
            return temporary, None
        try:
            _try_lock(descriptor)
        except BlockingIOError:
            # Another process is removing orphans and takes this one, not locked yet, for one of them.
            os.close(descriptor)
            continue
        if _is_at(descriptor, temporary):
            return temporary, descriptor
        os.close(descriptor)


def _try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file; False where there are no locks. Raises ``BlockingIOError`` when somebody else holds it."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether ``path`` is still the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot, and need not.
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)
