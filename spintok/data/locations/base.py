"""Recordings that are no local files of their own: on an object store, inside of another file, a part of a longer one.

A location is path-like. Its text is an address, which names what is inside before what it is inside of, as fsspec does:

==============================================  ==============================================
``s3://bucket/a.flac``                          a file of an object store
``tar://speaker/a.flac::s3://bucket/000.tar``   a member of a tar file
``parquet://17/audio::data/000.parquet``        row 17 of a column of a Parquet file
``cut://12.5,3.25::long.flac``                  3.25 s of a recording, from 12.5 s on
==============================================  ==============================================
"""

import hashlib
import os
import tempfile
import threading
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Generic, TypeVar

from spintok.data.ffmpeg import EXTENSIONS

__all__ = [
    "LocalAudio",
    "Location",
    "LocationError",
    "Recent",
    "Source",
    "Span",
    "TemporaryCopy",
    "is_url",
    "source_from",
]

T = TypeVar("T")

_BY_NAME = EXTENSIONS | {".au", ".gsm", ".snd", ".vox"}
"""Endings that decide how a file is decoded: ffmpeg's, and what libsndfile takes for raw samples without a header."""

_SMALL = 1 << 23
"""Bytes of a copy that are kept in memory, 8 MiB: on a disk, deleting a file takes milliseconds."""

_LONGEST = 1e9
"""Seconds that are taken for real."""

Source = tuple[int, int]
"""What changes with a file: its size in bytes, and the time in nanoseconds or a number of its version."""


class LocationError(ValueError):
    """What a recording is inside of is damaged, or does not hold it; the message says how."""


@dataclass(frozen=True)
class Span:
    """A part of a recording.

    Attributes:
        start, duration: seconds; each is rounded to samples at the rate of the recording.
        channels: those that are read, from 0; None for all.

    Raises ``ValueError`` if these are no part of any recording.
    """

    start: float
    duration: float
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.start <= _LONGEST and 0 < self.duration <= _LONGEST):
            raise ValueError(f"a part cannot start at {self.start} s and take {self.duration} s")
        if min(self.channels or (0,)) < 0:
            raise ValueError(f"channels are counted from 0, got {self.channels}")

    def samples(self, rate: int) -> range:
        """The samples at a rate; rounded as Lhotse does, half up."""
        first, count = (
            int(Decimal(round(seconds * rate, 8)).quantize(Decimal(0), ROUND_HALF_UP))
            for seconds in (self.start, self.duration)
        )
        return range(first, first + count)


@dataclass(frozen=True)
class LocalAudio:
    """An audio file that decoders can open.

    Attributes:
        path: the path of the file.
        suffix: the ending of the audio file's name, in lower case.
        span: the part that is meant; None for all of it.
        copy: what deletes the file when nothing refers to it any more; None if the file is no copy.
    """

    path: str
    suffix: str
    span: Span | None = None
    copy: "TemporaryCopy | None" = None


class Location(ABC):
    """Where a recording is. Equal addresses are equal locations."""

    @property
    @abstractmethod
    def suffix(self) -> str:
        """The ending of the audio file's name, in lower case, with the dot; "" if unknown."""

    @abstractmethod
    def __str__(self) -> str:
        """The address."""

    def __fspath__(self) -> str:
        return str(self)

    @abstractmethod
    def source(self) -> Source:
        """What changes when the audio does. Raises ``OSError`` or ``ValueError`` when it cannot be examined."""

    @abstractmethod
    def local(self) -> LocalAudio:
        """A local file with the audio. Raises ``OSError``, or ``ValueError`` when what it is inside of is damaged."""


class TemporaryCopy:
    """A new, empty file, which is deleted when nothing refers to this object any more.

    A small one is in memory where the system can do that. Where there is ``/proc``, a larger one has no name in its
    folder, so a process that is killed leaves nothing behind; but formats that decoders tell by the name do have one.

    Args:
        suffix: the ending of the audio file's name.
        small: whether it may be in memory.

    Attributes:
        name: a name by which this process, and programs that it starts, can open the file.
    """

    def __init__(self, suffix: str, *, small: bool = False) -> None:
        by_name, processes = suffix in _BY_NAME, Path(f"/proc/{os.getpid()}/fd")
        nameless = not by_name and processes.exists()
        if nameless and small and hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("spintok")
        else:
            descriptor, self.name = tempfile.mkstemp(prefix="spintok-", suffix=suffix if by_name else "")
            if nameless:
                Path(self.name).unlink()
        if nameless:
            self.name = str(processes / str(descriptor))
            weakref.finalize(self, os.close, descriptor)
        else:
            os.close(descriptor)
            weakref.finalize(self, Path(self.name).unlink, missing_ok=True)

    @classmethod
    def of(cls, blocks: Iterable[bytes], suffix: str) -> LocalAudio:
        """A copy of consecutive blocks of bytes; ``suffix`` is the ending of the audio file's name."""
        remaining = iter(blocks)
        first = next(remaining, b"")
        copy = cls(suffix, small=len(first) <= _SMALL)
        with Path(copy.name).open("wb") as file:
            file.write(first)
            for block in remaining:
                file.write(block)
        return LocalAudio(copy.name, suffix, copy=copy)


class Recent(Generic[T]):
    """The last few values that were made, for threads that ask for the same ones.

    Args:
        size: how many are kept.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._made: OrderedDict[Hashable, Future[T]] = OrderedDict()
        self._guard = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key; one thread makes it while the others that want it wait. Errors are not kept."""
        with self._guard:
            found = self._made.get(key)
            if found is None:
                made = self._made[key] = Future()
                while len(self._made) > self._size:
                    self._made.popitem(last=False)
            else:
                self._made.move_to_end(key)
        if found is not None:
            return found.result()
        try:
            made.set_result(make())
        except BaseException as error:
            made.set_exception(error)
            with self._guard:
                if self._made.get(key) is made:
                    del self._made[key]
            raise
        return made.result()


def is_url(source: str | os.PathLike[str]) -> bool:
    """Whether a source is an address (``s3://...``) rather than a local path."""
    name = os.fspath(source)
    return "://" in name and name.partition("://")[0].isalnum()


def source_from(size: int, *version: object) -> Source:
    """A size, and a number from whatever tells versions apart."""
    digest = hashlib.sha256("\n".join(map(str, version)).encode("utf-8", "backslashreplace")).digest()
    return size, int.from_bytes(digest[:7], "big")
