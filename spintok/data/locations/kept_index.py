"""Indexes of tar files on object stores, kept in a folder for the next run and for other workers.

To list such a file takes a request for each recording in it. The folder is that of the output, which all workers see:
each index is made once, and whoever needs it later takes one request.
"""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from spintok._files import atomic
from spintok.data.locations.addresses import located
from spintok.data.locations.base import source_from
from spintok.data.locations.remote import File, RemoteFile
from spintok.data.locations.tar import TarIndex, TarMember, tar_index

__all__ = ["KeptIndexes"]

_VERSION = 1


class KeptIndexes:
    """Makes indexes of tar files, or takes those that are kept.

    Args:
        folder: a path or address; it need not exist.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder.rstrip("/")

    def __call__(self, archive: File) -> TarIndex:
        """As ``tar_index``. Raises ``OSError`` when a file cannot be read, or an index not be written."""
        if not isinstance(archive, RemoteFile):
            return tar_index(archive)
        about = [archive.url, *archive.source()]
        name = f"{source_from(0, *about)[1]:014x}.json.gz"
        kept = located(f"{self._folder}/{name}")
        assert isinstance(kept, Path | RemoteFile)
        found = _read(kept, archive, about)
        if found is None:
            found = tar_index(archive)
            # What is damaged may be repaired.
            if found.damage is None:
                _write(kept, found, about)
        return found


def _read(kept: File, archive: RemoteFile, about: list[Any]) -> TarIndex | None:
    try:
        content = kept.content() if isinstance(kept, RemoteFile) else kept.read_bytes()
        values = json.loads(gzip.decompress(content))
        if values["spintok_tar_index"] != _VERSION or values["about"] != about:
            return None
        members = {name: TarMember(archive, name, int(start), int(size)) for name, start, size in values["members"]}
        return TarIndex(members, {str(name): dict(note) for name, note in values["notes"].items()}, None)
    except FileNotFoundError:
        return None
    except (EOFError, zlib.error, gzip.BadGzipFile, ValueError, KeyError, TypeError, AttributeError):
        # It is made anew.
        return None


def _write(kept: File, index: TarIndex, about: list[Any]) -> None:
    members = [[member.name, member.start, member.size] for member in index.members.values()]
    values = {"spintok_tar_index": _VERSION, "about": about, "members": members, "notes": index.notes}
    content = gzip.compress(json.dumps(values).encode(), mtime=0)
    if isinstance(kept, RemoteFile):
        kept.write(content)
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    with atomic(kept) as temporary:
        temporary.write_bytes(content)
