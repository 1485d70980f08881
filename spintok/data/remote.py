"""Files of object stores and web servers by fsspec: ``s3://``, ``gs://``, ``hf://``, ``https://`` and others."""

import os
import random
import time
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from spintok._files import MissingPackageError

__all__ = ["RemoteError", "file_system", "is_url", "retried"]

T = TypeVar("T")

PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each retry, each made up to half longer at random, so that many workers do not return together."""

_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub", "az": "adlfs", "abfs": "adlfs"
}  # fmt: skip


class RemoteError(OSError):
    """A store that does not answer as it should, after all retries."""


def is_url(source: str | os.PathLike[str]) -> bool:
    """Whether a source is an address (``s3://...``) rather than a local path."""
    name = os.fspath(source)
    return "://" in name and name.partition("://")[0].isalnum()


@cache
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
        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(protocol, protocol)
        raise MissingPackageError(f"{protocol}:// needs {package} ({error}): pip install {package}") from None
    return filesystem, str(path).rstrip("/")


def _transient_errors() -> tuple[type[Exception], ...]:
    # Imported once a call has failed, or every `spintok encode` would wait for it.
    import aiohttp

    return OSError, TimeoutError, aiohttp.ClientError


def retried(call: Callable[[], T], name: str) -> T:
    """The result of a call that may fail for a moment: it is repeated after pauses that double.

    Raises:
        FileNotFoundError, FileExistsError, PermissionError: at once, from the first call that raises them.
        RemoteError: all tries failed; the message names ``name`` and the last cause.
    """
    for pause in (*PAUSES, None):
        try:
            return call()
        except (FileNotFoundError, FileExistsError, PermissionError, NotImplementedError):
            raise
        except _transient_errors() as error:
            if pause is None:
                cause = " ".join(str(error).split()) or type(error).__name__
                raise RemoteError(f"{name}: {cause} (after {len(PAUSES) + 1} tries)") from None
            time.sleep(pause * random.uniform(1.0, 1.5))
    raise AssertionError
