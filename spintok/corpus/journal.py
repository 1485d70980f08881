"""The journal of a shard: its finished utterances, appended one by one, so that a killed run loses at most one.

The journal is a hidden file beside the shard and is deleted when the shard is complete. Each line is the
CRC-32 of a JSON value in eight hexadecimal digits, a space, and the value. A process killed while it appends leaves an
incomplete last line, and a power failure may lose more; replaying ends at the first line that is not whole.
"""

import json
import os
import time
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from spintok._files import json_line, open_locked

__all__ = ["Journal", "journal_path", "read_journal"]

_SYNC_SECONDS = 5.0
"""Between flushes to the disk. What a process has written outlives the process without them, but not the machine."""


def journal_path(shard: Path) -> Path:
    """The journal of a shard."""
    return shard.with_name(f".{shard.name}.journal")


def read_journal(path: Path, identity: Mapping[str, Any]) -> list[Any]:
    """The entries of a journal that another process may be writing; none when it is missing or has another identity."""
    try:
        with path.open("rb") as file:
            values, _ = _whole_lines(file)
    except FileNotFoundError:
        return []
    return values[1:] if values and values[0] == identity else []


class Journal:
    """An open journal. While it is open, no other process can open it.

    Args:
        path: the file; created when it is missing.
        identity: what all entries depend on. The entries of a journal with another identity are discarded.

    Attributes:
        entries: the values appended by earlier runs, in order.

    Raises:
        BlockingIOError: another process has it open.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._file = os.fdopen(open_locked(path), "r+b")
        self._synced = time.monotonic()
        header, *self.entries = self._replay() or [None]
        if header != identity:
            self.entries = []
            self._file.truncate(0)
            self.append(identity)

    def append(self, value: Mapping[str, Any]) -> None:
        """Add an entry; it outlives this process at once, and the machine within seconds."""
        self._file.write(_line(json_line(value).encode()))
        self._file.flush()
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def delete(self) -> None:
        """Delete the file; its entries are no longer needed."""
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _replay(self) -> list[Any]:
        """All values up to the first line that is not whole; the file is cut there."""
        values, end = _whole_lines(self._file)
        self._file.truncate(end)
        return values


def _whole_lines(file: Iterable[bytes]) -> tuple[list[Any], int]:
    """The values up to the first line that is not whole, and where that begins."""
    values, end = [], 0
    for line in file:
        value = line[9:]
        if not value.endswith(b"\n") or line != _line(value):
            break
        values.append(json.loads(value))
        end += len(line)
    return values, end


def _line(value: bytes) -> bytes:
    return b"%08x %b" % (zlib.crc32(value), value)
