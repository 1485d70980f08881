"""Lists of what is packed: tar files (WebDataset), Parquet files (Hugging Face) and Shar folders (Lhotse)."""

import gzip
import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from spintok.data.audio import EXTENSIONS
from spintok.data.json_lines import KEY_FIELDS, json_objects
from spintok.data.lhotse import lhotse_utterance
from spintok.data.locations.base import Location, LocationError
from spintok.data.locations.parquet import ParquetRow, parquet_rows
from spintok.data.locations.remote import File, RemoteError, RemoteFile
from spintok.data.locations.tar import TarIndex, TarMember, tar_index
from spintok.data.utterance import ManifestError, Utterance, as_utf8, stated_duration

__all__ = ["COMPRESSED", "PACKED", "Index", "packed_utterances", "read_lines", "shar_utterances"]

PACKED = (".tar", ".parquet")
"""Endings of files that hold recordings."""

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
"""Endings of tar files whose members cannot be read one by one."""

_READERS = 16
"""Files that are listed at the same time."""

_SPEAKERS = ("speaker", "speaker_id")


@dataclass(frozen=True)
class _Item:
    """A recording in a file.

    Attributes:
        key: its key, if no other recording has the same.
        full: the name of the file without its ending, and its name in there.
    """

    key: str
    full: str
    path: Location
    speaker: str | None = None
    seconds: float | None = None


Index = Callable[[File], TarIndex]
"""What lists a tar file: ``tar_index``, or one that keeps indexes."""


def packed_utterances(files: Mapping[str, File], index: Index = tar_index) -> list[Utterance]:
    """The recordings in tar or Parquet files, in the order of the files' names and in their own.

    The key is that of the sample in a tar file (its name up to the first dot), and in a Parquet file that of a column
    called as in JSON lines, or the name of the audio file without its ending, or else the number of the row. Where
    several recordings would have one key, each has its name in the file, after that of the file. A damaged file is
    listed too, with a slash, so that reading it fails with the cause.

    Args:
        files: the files by their names below a folder, which are in those keys.
        index: lists tar files.

    Raises:
        ManifestError: none holds any audio.
        RemoteError: their store does not answer.
        MissingPackageError: Parquet needs pyarrow, which is not installed.
    """
    names = sorted(files, key=lambda name: name.split("/"))
    # Workers that start together make indexes for each other.
    shuffled = random.sample(names, len(names))
    with ThreadPoolExecutor(_READERS) as pool:
        found = dict(zip(shuffled, pool.map(lambda name: _items(name, files[name], index), shuffled), strict=True))
    listed = [found[name] for name in names]
    items = [item for held, _ in listed for item in held]
    damaged = [(name, broken) for name, (_, broken) in zip(names, listed, strict=True) if broken is not None]
    if not items:
        cause = str(damaged[0][1][1]) if damaged else f"{files[names[0]]}: holds no audio"
        raise ManifestError(cause)
    count = Counter(item.key for item in items)
    utterances = [
        Utterance(
            as_utf8(item.key if count[item.key] == 1 else item.full), item.path, item.speaker, seconds=item.seconds
        )
        for item in items
    ]
    # As an unreadable subfolder is.
    return utterances + [Utterance(as_utf8(f"{name}/"), where) for name, (where, _) in damaged]


_Damage = tuple[Location, Exception] | None


def _items(name: str, file: File, index: Index) -> tuple[list[_Item], _Damage]:
    """The recordings in a file, and what stands for the rest of it if it is damaged."""
    stem = name.rpartition(".")[0]
    found: list[_Item] = []
    if name.lower().endswith(".tar"):
        whole: Location = TarMember(file, "")
        try:
            listed = index(file)
            found += _members(stem, listed.members, listed.notes)
            return found, None if listed.damage is None else (whole, LocationError(f"{file}: {listed.damage}"))
        except RemoteError:
            # A store that is away says nothing of the file.
            raise
        except OSError as error:
            return found, (whole, LocationError(f"{file}: {error.strerror or error}"))
    try:
        for row, values in parquet_rows(file, (*KEY_FIELDS, *_SPEAKERS, "duration")):
            found.append(_row(stem, row, values))
    except RemoteError:
        raise
    except (OSError, LocationError) as error:
        return found, (ParquetRow(file, "audio", -1), error)
    return found, None


def _members(stem: str, members: Mapping[str, TarMember], notes: Mapping[str, Mapping[str, Any]]) -> Iterator[_Item]:
    for name, member in members.items():
        path = PurePosixPath(name)
        if path.suffix.lower() not in EXTENSIONS or path.name.startswith("."):
            continue
        key = str(path.with_name(path.name.partition(".")[0]))
        note = notes.get(key, {})
        yield _Item(key, f"{stem}/{path}", member, _speaker(note), _duration(note))


def _row(stem: str, row: ParquetRow, values: Mapping[str, Any]) -> _Item:
    key = next((str(values[field]) for field in KEY_FIELDS if values.get(field) is not None), None)
    number = f"{stem}/{row.row:06d}"
    if key is None:
        key = str(PurePosixPath(row.name).with_suffix("")) if PurePosixPath(row.name).name else number
    return _Item(key, number, row, _speaker(values), _duration(values))


def _speaker(values: Mapping[str, Any]) -> str | None:
    return next((as_utf8(str(values[field])) for field in _SPEAKERS if values.get(field) is not None), None)


def _duration(values: Mapping[str, Any]) -> float | None:
    """The stated duration. What others wrote beside the audio may mean something else: its header then counts."""
    try:
        return stated_duration(values)
    except ValueError:
        return None


def shar_utterances(files: Mapping[str, File], folder: File, index: Index = tar_index) -> list[Utterance] | None:
    """The cuts of a Shar folder, in its order; None if the files are not those of one.

    Raises:
        ManifestError: the list of cuts is damaged, or has cuts that hold no audio of their own.
    """
    cuts = sorted(name for name in files if name.startswith("cuts.") and ".jsonl" in name)
    found: list[Utterance] = []
    for name in cuts:
        number = name.split(".")[1]
        member = _shar_members(files.get(f"recording.{number}.tar"), name, index)
        for _, utterance in _cuts(files[name], folder, member):
            found.append(utterance)
    return found if cuts else None


def _shar_members(archive: File | None, cuts: str, index: Index) -> Callable[[str], Location]:
    """Finds the audio of a cut in the tar file beside a list of cuts."""
    members: dict[str, TarMember] | None = None

    def find(key: str) -> Location:
        nonlocal members
        if archive is None:
            raise ValueError(f"there is no recording.{cuts.split('.')[1]}.tar with the audio of these cuts")
        if members is None:
            found = index(archive).members
            members = {name.rpartition(".")[0]: member for name, member in found.items() if not name.endswith(".json")}
        # One that is not there fails when it is read.
        return members.get(key) or TarMember(archive, key)

    return find


def _cuts(file: File, folder: File, member: Callable[[str], Location]) -> Iterable[tuple[int, Utterance]]:
    try:
        for number, record in json_objects(read_lines(file)):
            try:
                yield number, lhotse_utterance(record, folder, member)
            except (ValueError, OSError) as error:
                raise ValueError(f"{number}: {error}") from None
    except ValueError as error:
        raise ManifestError(f"{file}:{error}") from None


def read_lines(file: File) -> Sequence[str]:
    """The lines of a text file, which may be compressed by gzip. Raises ``ManifestError``."""
    try:
        data = file.content() if isinstance(file, RemoteFile) else file.read_bytes()
        if str(file).lower().endswith(".gz"):
            data = gzip.decompress(data)
        return data.decode("utf-8").split("\n")
    except FileNotFoundError:
        raise ManifestError(f"{file}: no such file") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{file}: not a text file in UTF-8") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ManifestError(f"{file}: damaged: {error}") from None
    except OSError as error:
        cause = error.strerror or str(error)
        raise ManifestError(cause if cause.startswith(f"{file}: ") else f"{file}: {cause}") from None
