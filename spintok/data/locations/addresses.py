"""Addresses of recordings: the text of every location, read back."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path
from posixpath import normpath

from spintok.data.locations.base import LocalAudio, Location, Source, Span, is_url
from spintok.data.locations.cut import Cut
from spintok.data.locations.parquet import ParquetRow
from spintok.data.locations.remote import File, RemoteFile
from spintok.data.locations.tar import TarMember

__all__ = ["absolute", "local_audio", "located", "resolve", "source_of", "sources_of", "suffix_of"]

_REQUESTS = 16
"""Files of object stores that are examined at the same time."""


def located(source: str | os.PathLike[str]) -> Path | Location:
    """Where a source is: what an address names, or else a local path. Raises ``ValueError`` for a faulty address."""
    if isinstance(source, Location):
        return source
    return resolve(Path(), os.fspath(source)) if is_url(source) else Path(source)


def resolve(folder: File, name: str) -> Path | Location:
    """Where a name in a list is that is in ``folder``: an address, or a path, which starts at the folder if relative.

    Raises ``ValueError`` for a faulty address.
    """
    kind, _, rest = name.partition("://") if is_url(name) else ("", "", name)
    try:
        match kind:
            case "":
                return _join(folder, name)
            case "tar":
                # Of the two, names of members are the stranger ones.
                member, separator, archive = rest.rpartition("::")
                if separator:
                    return TarMember(_file(folder, archive), member)
            case "parquet":
                place, separator, file = rest.partition("::")
                row, slash, column = place.partition("/")
                if separator and slash:
                    return ParquetRow(_file(folder, file), column, int(row))
            case "cut":
                place, separator, recording = rest.partition("::")
                start, duration, *channels = place.split(",")
                if separator:
                    span = Span(float(start), float(duration), tuple(map(int, channels)) or None)
                    if not (0 <= span.start < inf and 0 < span.duration < inf):
                        raise ValueError
                    return Cut(resolve(folder, recording), span)
            case _:
                return RemoteFile(name)
    except ValueError:
        pass
    raise ValueError(
        f"{name}: not an address; there are tar://MEMBER::FILE, parquet://ROW/COLUMN::FILE and cut://START,SECONDS::FILE"
    )


def absolute(name: str) -> str:
    """A path or address of a list, so that it does not depend on the current folder."""
    if not is_url(name):
        return os.path.abspath(name)  # noqa: PTH100
    return str(resolve(Path.cwd(), name))


def local_audio(path: str | os.PathLike[str]) -> LocalAudio:
    """A local file with the audio of a path or address. Raises ``OSError`` or ``ValueError``."""
    found = located(path)
    return found.local() if isinstance(found, Location) else LocalAudio(os.fspath(path), found.suffix.lower())


def suffix_of(path: str | os.PathLike[str]) -> str:
    """The ending of an audio file's name, in lower case."""
    return located(path).suffix.lower()


def source_of(path: str | os.PathLike[str]) -> Source | None:
    """Size and time or version of an audio file; None when it cannot be examined."""
    try:
        found = located(path)
        if isinstance(found, Location):
            return found.source()
        status = found.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def sources_of(paths: Sequence[str | os.PathLike[str]]) -> list[Source | None]:
    """``source_of`` each path, many at a time where each is a request."""
    if not any(map(is_url, paths)):
        return [source_of(path) for path in paths]
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return list(pool.map(source_of, paths))


def _file(folder: File, name: str) -> File:
    found = resolve(folder, name)
    if isinstance(found, Path | RemoteFile):
        return found
    raise ValueError(name)


def _join(folder: File, name: str) -> File:
    if isinstance(folder, Path):
        return folder / name
    if name.startswith("/"):
        return Path(name)
    protocol, separator, root = folder.url.partition("://")
    return RemoteFile(protocol + separator + normpath(f"{root}/{name}"))
