"""Members of tar files, read where they are: nothing is extracted, and no other member is read."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from spintok.data.locations.base import LocalAudio, Location, LocationError, Recent, Source, TemporaryCopy, source_from
from spintok.data.locations.remote import File, file_source, open_file, read_range

__all__ = ["TarError", "TarIndex", "TarMember", "tar_index"]

_BLOCK = tarfile.BLOCKSIZE
_SHORT = 100
"""Bytes of a name that a header holds; longer ones are in a header of their own before it."""


_LARGEST_NOTE = 1 << 20
_NOTED = ("speaker", "speaker_id", "duration")


class TarError(LocationError):
    """A tar file that is damaged; the message says where."""


@dataclass(frozen=True)
class TarMember(Location):
    """A member of a tar file.

    Attributes:
        archive: the tar file.
        name: the member's name; "" stands for what cannot be found in a damaged file.
        start, size: where its bytes are, if that is known.
    """

    archive: File
    name: str
    start: int = field(default=-1, compare=False)
    size: int = field(default=-1, compare=False)

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix.lower()

    def __str__(self) -> str:
        return f"tar://{self.name}::{self.archive}"

    def source(self) -> Source:
        found = self._found()
        # With the whole file's: a member may be replaced by another of the same size and time.
        return source_from(found.size, found.start, *file_source(self.archive))

    def local(self) -> LocalAudio:
        return TemporaryCopy.of(self._blocks(), self.suffix)

    def _blocks(self) -> Iterator[bytes]:
        found = self._found()
        left = file_source(self.archive)[0] - found.start
        if left < found.size:
            raise TarError(f"the tar file is cut short: it has {max(0, left)} of the {found.size} bytes of this member")
        # With its header: it is another one if the file was replaced since it was listed.
        blocks = read_range(self.archive, found.start - _BLOCK, _BLOCK + found.size)
        first = next(blocks)
        try:
            header = tarfile.TarInfo.frombuf(first[:_BLOCK], tarfile.ENCODING, "surrogateescape")
        except tarfile.HeaderError as error:
            raise TarError(f"the tar file is damaged, or was replaced meanwhile: {error}") from None
        long = len(self.name.encode("utf-8", "surrogateescape")) > _SHORT
        if header.size != found.size or not (long or header.name.removeprefix("./") == self.name.removeprefix("./")):
            raise TarError("the tar file was replaced meanwhile: it has another member here")
        yield first[_BLOCK:]
        yield from blocks

    def _found(self) -> "TarMember":
        if self.start >= 0:
            return self
        index = tar_index(self.archive)
        if self.name in index.members:
            return index.members[self.name]
        raise TarError(index.damage or f"no member {self.name!r} in {self.archive}")


@dataclass(frozen=True)
class TarIndex:
    """What a tar file holds.

    Attributes:
        members: the regular files, by name, in their order. Of several of one name there is the last, as for tar.
        notes: some fields of the JSON beside the members of a sample, by its name up to the first dot.
        damage: why the rest of the file cannot be listed; None if this is all.
    """

    members: dict[str, TarMember]
    notes: dict[str, dict[str, Any]]
    damage: str | None


_INDEXES = Recent[TarIndex](8)


def tar_index(archive: File) -> TarIndex:
    """What a tar file holds, from the headers of its members. Raises ``OSError`` when it cannot be read."""
    return _INDEXES.get((str(archive), file_source(archive)), lambda: _index(archive))


def _index(archive: File) -> TarIndex:
    members: dict[str, TarMember] = {}
    notes: dict[str, dict[str, Any]] = {}
    with open_file(archive) as file:
        head = file.read(6)
        if head[:2] == b"\x1f\x8b" or head[:3] == b"BZh" or head == b"\xfd7zXZ\x00" or head[:4] == b"(\xb5/\xfd":
            return TarIndex({}, {}, "it is compressed, so its members cannot be read one by one: decompress it")
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (info := tar.next()) is not None:
                    # Or tarfile would keep all of them.
                    tar.members = []  # type: ignore[attr-defined]
                    if info.isreg() and not info.issparse():
                        members.pop(info.name, None)
                        members[info.name] = TarMember(archive, info.name, info.offset_data, info.size)
                        if info.name.endswith(".json") and info.size <= _LARGEST_NOTE:
                            file.seek(info.offset_data)
                            notes[info.name.removesuffix(".json").removeprefix("./")] = _note(file.read(info.size))
                end = tar.offset
        except (tarfile.TarError, ValueError, EOFError) as error:
            return TarIndex(members, notes, f"the tar file is damaged or cut short: {error}")
        # tarfile takes a damaged header for the end.
        file.seek(end)
        block = file.read(_BLOCK)
    whole = not block.strip(b"\0")
    return TarIndex(
        members, notes, None if whole else f"the tar file is damaged at byte {end}: what follows cannot be listed"
    )


def _note(content: bytes) -> dict[str, Any]:
    try:
        values = json.loads(content)
        return {name: values[name] for name in _NOTED if name in values} if isinstance(values, dict) else {}
    except (ValueError, RecursionError):
        # It is of the sample's other uses, and none of this one's.
        return {}
