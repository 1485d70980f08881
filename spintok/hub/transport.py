"""Copy a file from an HTTP or local address to disk with fsspec, in blocks, resuming where an earlier copy stopped."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import aiohttp
from fsspec.implementations.http import HTTPFileSystem
from fsspec.implementations.local import LocalFileSystem

__all__ = ["TransportError", "receive", "size_at"]

BLOCK = 1 << 20
"""Bytes asked for in one request; an interrupted copy loses at most one block."""

BLOCK_SECONDS = 60.0
"""Total time that a request for a block may take, so that a server that sends a byte now and then fails too."""

PAUSES = (0.5, 1.0, 2.0)
"""Seconds before each retry. A retry that receives something restores the full number of retries."""


class TransportError(Exception):
    """The address cannot be read; the message is the cause without the address, on one line."""


def receive(url: str, partial: Path, size: int, progress: Callable[[int], None]) -> None:
    """Append to ``partial`` the rest of the ``size`` bytes at ``url``.

    Args:
        url: http://, https:// or file://.
        partial: holds the first bytes of the file, or does not exist.
        size: the size of the whole file, in bytes.
        progress: called with the number of bytes in ``partial``.

    Raises:
        TransportError: the server, the network or the local file fails for good.
        OSError: ``partial`` cannot be written.
    """
    failures = 0
    while (before := _size(partial)) < size:
        try:
            _append(url, partial, size, progress)
        except (TimeoutError, aiohttp.ClientError) as error:
            failures = 0 if _size(partial) > before else failures + 1
            if failures > len(PAUSES) or not _may_pass(error):
                raise TransportError(_cause(error)) from None
            time.sleep(PAUSES[max(failures, 1) - 1])


def size_at(url: str) -> int:
    """The size in bytes of the file at an address. Raises ``TransportError``."""
    filesystem, address = _filesystem(url)
    try:
        size = filesystem.info(address)["size"]
    except FileNotFoundError:
        raise TransportError("the server has no such file") from None
    except (OSError, TimeoutError, aiohttp.ClientError) as error:
        raise TransportError(_cause(error)) from None
    if not size:
        raise TransportError("the server does not say how large the file is")
    return int(size)


def _append(url: str, partial: Path, size: int, progress: Callable[[int], None]) -> None:
    filesystem, address = _filesystem(url)
    try:
        source = filesystem.open(address, block_size=BLOCK, size=size, cache_type="none")
    except OSError as error:
        raise TransportError(_cause(error)) from None
    with source, partial.open("ab") as sink:
        done = sink.tell()
        source.seek(done)
        progress(done)
        while done < size:
            try:
                block = source.read(min(BLOCK, size - done))
            except ValueError:
                # fsspec raises this when the server ignores the Range header.
                break
            if not block:
                raise TransportError(f"the file ends after {done:,} of {size:,} bytes: it was changed at its source")
            done += sink.write(block)
            sink.flush()
            progress(done)
    if done < size:
        _stream(filesystem, address, partial, size, progress)


def _stream(
    filesystem: HTTPFileSystem, address: str, partial: Path, size: int, progress: Callable[[int], None]
) -> None:
    """Copy the file from its start in one request, from a server that cannot send parts of a file."""
    deadline = aiohttp.ClientTimeout(total=BLOCK_SECONDS * (1 + size // BLOCK))
    with filesystem.open(address, block_size=0, size=size, timeout=deadline) as source, partial.open("wb") as sink:
        while (done := sink.tell()) < size and (block := source.read(min(BLOCK, size - done))):
            sink.write(block)
            sink.flush()
            progress(done + len(block))


def _filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the address in its terms. No HTTP redirect leads to a local file."""
    if url.startswith("file:"):
        return LocalFileSystem(), url2pathname(urlsplit(url).path)
    client = {
        # The checksum is that of the uncompressed bytes.
        "headers": {"User-Agent": "spintok", "Accept-Encoding": "identity"},
        "timeout": aiohttp.ClientTimeout(total=BLOCK_SECONDS),
        "trust_env": True,
    }
    return HTTPFileSystem(client_kwargs=client, encoded=True, skip_instance_cache=True), url


def _may_pass(error: Exception) -> bool:
    """Whether the failure may be gone at the next try."""
    if isinstance(error, aiohttp.ClientResponseError):
        return error.status in (408, 429) or error.status >= 500
    return not isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.InvalidURL)


def _cause(error: Exception) -> str:
    if isinstance(error, aiohttp.TooManyRedirects):
        return "too many redirects"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"HTTP {error.status} {' '.join(error.message.split())}"
    if isinstance(error, asyncio.TimeoutError):
        return f"no block of {BLOCK / 1e6:.1f} MB arrived within {BLOCK_SECONDS:g} s"
    if isinstance(error, OSError) and (error.errno or 0) > 0:
        return os.strerror(error.errno or 0)
    return " ".join(str(error).split()) or type(error).__name__


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
