"""One file from an address, whatever happens on the way: resumed, tried again, and checked before it has its name."""

import hashlib
import os
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
    url2pathname,
)

__all__ = ["DownloadError", "Progress", "download", "sha256_of"]

Progress = Callable[[str, int, int], None]
"""Called with what is downloaded, the bytes that are there and the bytes there will be."""

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as broken."""

PAUSES = (0.5, 1.0, 2.0)
"""Seconds before each new try, of which a try that brought ``CHUNK`` bytes gives the full number again."""

CHUNK = 1 << 20


class DownloadError(ValueError):
    """A file that could not be had; the message names its address and the cause."""


class _BrokenOffError(Exception):
    """What may pass by itself: worth another try."""


def download(
    url: str, path: Path, partial: Path, *, sha256: str, size: int, progress: Callable[[int], None] | None = None
) -> None:
    """Download ``url`` to ``path``, which appears whole and checked, or not at all.

    Args:
        url: an http://, https:// or file:// address.
        path: the file to write.
        partial: where the bytes are gathered, in the same folder; what an earlier run left there is gone on from. No
            other process may write it.
        sha256: of the whole file, in hexadecimal.
        size: of the whole file, in bytes.
        progress: called with the bytes that are there.

    Raises:
        DownloadError: the network or the server fails, or the bytes are not those that ``sha256`` and ``size`` name.
        OSError: ``partial`` or ``path`` cannot be written.
    """
    fresh = not partial.exists()
    while True:
        fresh = _complete(url, partial, size, progress or (lambda done: None)) or fresh
        found = sha256_of(partial)
        if found == sha256:
            break
        partial.unlink()
        if fresh:
            raise DownloadError(
                f"{url}: wrong checksum: its sha256 is {found}, and {sha256} was expected; the file was changed at its "
                "source or damaged on the way, and has been deleted here"
            )
        # The bytes of an earlier run may have been those of another file.
        fresh = True
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _complete(url: str, partial: Path, size: int, told: Callable[[int], None]) -> bool:
    """Bring ``partial`` to ``size`` bytes, over as many connections as it takes; whether it was begun anew."""
    failures, anew = 0, False
    while (before := _size(partial)) != size:
        if before > size:
            partial.unlink()
            before, anew = 0, True
        try:
            anew = _append(url, partial, before, size, told) or anew
            if (now := _size(partial)) != size:
                raise _BrokenOffError(f"the connection closed after {now:,} of {size:,} bytes")
        except _BrokenOffError as error:
            failures = 1 if _size(partial) - before >= CHUNK else failures + 1
            if failures > len(PAUSES):
                raise DownloadError(f"{url}: {error}") from None
            time.sleep(PAUSES[failures - 1])
    told(size)
    return anew


def _append(url: str, partial: Path, have: int, size: int, told: Callable[[int], None]) -> bool:
    """Add to ``partial``, which has ``have`` bytes, what one connection brings; whether it had to begin anew."""
    try:
        stream, begin = _open(url, have, size)
    except HTTPError as error:
        error.close()
        if error.code == 416:
            partial.unlink(missing_ok=True)
            raise _BrokenOffError("the server has no bytes from there on") from None
        cause = f"HTTP {error.code} {error.reason}"
        # Too slow, too many requests, and all that is the server's own fault.
        if error.code in (408, 429) or error.code >= 500:
            raise _BrokenOffError(cause) from None
        raise DownloadError(f"{url}: {cause}") from None
    except (OSError, HTTPException) as error:
        # Neither a certificate nor a file of this machine changes by waiting.
        if url.startswith("file:") or isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
            raise DownloadError(f"{url}: {_cause(error)}") from None
        raise _BrokenOffError(_cause(error)) from None
    with closing(stream), partial.open("ab" if begin else "wb") as file:
        done = begin
        told(done)
        for chunk in _chunks(stream):
            done += len(chunk)
            if done > size:
                partial.unlink()
                raise DownloadError(_wrong_size(url, f"more than {size:,}", size))
            file.write(chunk)
            told(done)
    return begin == 0


def _open(url: str, have: int, size: int) -> tuple[BinaryIO, int]:
    """A stream of the file's bytes, and where in the file it begins: at ``have`` or, when that cannot be, at 0."""
    if url.startswith("file:"):
        path = Path(url2pathname(urlsplit(url).path))
        if (held := path.stat().st_size) != size:
            raise DownloadError(_wrong_size(url, f"{held:,}", size))
        file = path.open("rb")
        file.seek(have)
        return file, have
    # What is stored is what the checksum is of, so nothing may be compressed on the way.
    headers = {"User-Agent": "spintok", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    response = _opener().open(Request(url, headers=headers), timeout=TIMEOUT)
    try:
        begin, total = _extent(response.status, response.headers)
        if total not in (None, size):
            raise DownloadError(_wrong_size(url, f"{total:,}", size))
        if begin not in (0, have):
            raise _BrokenOffError(f"the server sent bytes from {begin:,} on and was asked for those from {have:,} on")
    except Exception:
        response.close()
        raise
    return response, begin


def _extent(status: int, headers: HTTPMessage) -> tuple[int, int | None]:
    """Where a response begins in the file, and how many bytes the file has, if the server says so."""
    try:
        if status == 206:
            extent = headers["Content-Range"].removeprefix("bytes ")
            span, _, total = extent.partition("/")
            return int(span.partition("-")[0]), None if total == "*" else int(total)
        length = headers["Content-Length"]
        return 0, None if length is None else int(length)
    except (AttributeError, ValueError):
        raise _BrokenOffError("the server's answer makes no sense") from None


def _opener() -> OpenerDirector:
    # Without handlers of ftp:, file: and data:, no redirection can lead there.
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        HTTPHandler(),
        HTTPSHandler(),
        HTTPRedirectHandler(),
        HTTPDefaultErrorHandler(),
        HTTPErrorProcessor(),
        UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    """What the stream brings, as it comes, so that a connection that breaks loses nothing."""
    while True:
        try:
            chunk = stream.read1(CHUNK)  # type: ignore[attr-defined]
        except (OSError, HTTPException) as error:
            raise _BrokenOffError(_cause(error)) from None
        if not chunk:
            return
        yield chunk


def _cause(error: Exception) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) or type(cause).__name__


def _wrong_size(url: str, found: str, size: int) -> str:
    return f"{url}: wrong size: it has {found} bytes, and {size:,} were expected; the file was changed at its source"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
