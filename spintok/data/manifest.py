"""Lists of utterances: a folder of audio, or a manifest of fairseq, Kaldi, or JSON lines."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from spintok.data.audio import EXTENSIONS
from spintok.data.ffmpeg import HEAD, SHARED_EXTENSIONS, begins_transport_stream, is_transport_stream
from spintok.data.json_lines import PATH_FIELDS, json_objects, key_of, path_of
from spintok.data.lhotse import is_lhotse, lhotse_utterance
from spintok.data.locations.addresses import located, resolve
from spintok.data.locations.base import Location
from spintok.data.locations.kept_index import KeptIndexes
from spintok.data.locations.remote import File, RemoteFile, exists, file_source, files_below, is_folder
from spintok.data.locations.tar import tar_index
from spintok.data.packed import COMPRESSED, PACKED, Index, packed_utterances, read_lines, shar_utterances
from spintok.data.utterance import ManifestError, Utterance, as_utf8, stated_duration

__all__ = ["ManifestError", "Utterance", "is_list", "is_recording", "read_manifest", "scan"]

_ENDINGS = (".tsv", ".scp", ".jsonl", ".json", ".jsonl.gz")
_NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")


def scan(source: str | os.PathLike[str], indexes: str | None = None) -> list[Utterance]:
    """Return the utterances of a file, a folder, or a manifest, in an order that depends on their names only.

    A folder is searched at any depth, following links. The key of a file is its path below the folder without the
    extension, or with it if two files would share a key. A subfolder that cannot be read is listed like a file, so
    that reading it fails with the cause. Manifests: fairseq ``.tsv``, Kaldi ``wav.scp``, ``.jsonl``, Lhotse's cuts.

    Tar and Parquet files hold recordings (``spintok.data.packed``), and a folder without audio files may have such, or
    be one of Lhotse Shar. ``shard-{000..009}.tar`` stands for ten files. All may be addresses, such as ``s3://...``.

    Args:
        source: what to list.
        indexes: a folder or address in which the indexes of tar files on object stores are kept for the next call.

    Raises:
        ManifestError: there is no such source, it cannot be read, or it lists nothing.
        MissingPackageError: it needs a package that is not installed.
    """
    try:
        return _scan(source, tar_index if indexes is None else KeptIndexes(indexes))
    except OSError as error:
        raise _explained(source, error) from None


def _scan(source: str | os.PathLike[str], index: Index) -> list[Utterance]:
    found = located(source)
    if isinstance(found, Location) and not isinstance(found, RemoteFile):
        # A recording inside of a file.
        return [Utterance(as_utf8(str(found)), found)]
    if isinstance(found, Path) and found.is_dir():
        return _folder(found, index)
    if (files := _numbered(found)) is not None:
        return packed_utterances(files, index)
    if isinstance(found, Path) and not found.exists():
        raise ManifestError(f"{found}: no such file or folder")
    if found.name.lower().endswith(COMPRESSED):
        raise ManifestError(f"{found}: it is compressed, so its members cannot be read one by one: decompress it")
    if found.name.lower().endswith(PACKED):
        return packed_utterances({found.name: found}, index)
    if found.name.lower().endswith(_ENDINGS):
        return read_manifest(found)
    if isinstance(found, RemoteFile) and is_folder(found.url):
        return _remote_folder(found, index)
    return [Utterance(as_utf8(PurePosixPath(found.name).stem), found)]


def is_list(source: Path | Location) -> bool:
    """Return whether a file is a manifest or holds recordings, rather than being one, by its name."""
    return isinstance(source, Path | RemoteFile) and source.name.lower().endswith((*_ENDINGS, *PACKED, *COMPRESSED))


def is_recording(source: Path | Location) -> bool:
    """Return whether a source is one recording. Raises ``ManifestError`` when its store does not answer."""
    if is_list(source):
        return False
    if isinstance(source, Path):
        return source.is_file()
    try:
        return not (isinstance(source, RemoteFile) and is_folder(source.url))
    except OSError as error:
        raise _explained(source, error) from None


def _explained(source: str | os.PathLike[str], error: OSError) -> ManifestError:
    cause = "no such file, folder or bucket" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
    return ManifestError(cause if cause.startswith(f"{source}: ") else f"{source}: {cause}")


def _numbered(pattern: File) -> dict[str, File] | None:
    """The files that ``{000..009}`` in a name stands for; None if there is none, or a file is called so."""
    match = _NUMBERS.search(str(pattern))
    if match is None or (isinstance(pattern, Path) and pattern.exists()):
        return None
    first, last = int(match[1]), int(match[2])
    if not pattern.name.lower().endswith(PACKED):
        raise ManifestError(f"{pattern}: numbers in braces are for {' and '.join(PACKED)} files")
    if last < first or _NUMBERS.search(str(pattern), match.end()):
        raise ManifestError(f"{pattern}: expected one range of numbers, such as {{000..009}}")
    width = len(match[1]) if match[1].startswith("0") else 0
    found: dict[str, File] = {}
    for number in range(first, last + 1):
        name = str(pattern)[: match.start()] + str(number).zfill(width) + str(pattern)[match.end() :]
        file = RemoteFile(name) if isinstance(pattern, RemoteFile) else Path(name)
        try:
            source = file_source(file)
        except FileNotFoundError:
            raise ManifestError(f"{name}: no such file") from None
        # Asked for once, not for each recording in it.
        found[name] = RemoteFile(name, source) if isinstance(file, RemoteFile) else file
    return found


def _folder(folder: Path, index: Index) -> list[Utterance]:
    files, unreadable = _audio_below(folder)
    folders = [Utterance(as_utf8(f"{where.relative_to(folder).as_posix()}/"), where) for where in unreadable]
    if files or unreadable:
        return [*_keyed(folder, files), *folders]
    found = {path.relative_to(folder).as_posix(): path for path in _files_below(folder)[0]}
    return _others(folder, found, index)


def _remote_folder(folder: RemoteFile, index: Index) -> list[Utterance]:
    files = files_below(folder.url)
    audio = [name for name in sorted(files, key=lambda name: name.split("/")) if _is_remote_audio(files[name])]
    if not audio:
        return _others(folder, files, index)
    keys = _keys([PurePosixPath(name) for name in audio])
    return [Utterance(as_utf8(key), files[name]) for key, name in zip(keys, audio, strict=True)]


def _others(folder: File, files: Mapping[str, File], index: Index) -> list[Utterance]:
    """The utterances of a folder without audio files."""
    if (cuts := shar_utterances(files, folder, index)) is not None:
        return _unique(folder, enumerate(cuts, start=1), "cuts")
    for ending in PACKED:
        if packed := {name: file for name, file in files.items() if name.lower().endswith(ending)}:
            return packed_utterances(packed, index)
    raise ManifestError(
        f"{folder}: no audio files in this folder: no name ends in .wav, .flac, .mp3, .m4a or another of the "
        f"{len(EXTENSIONS)} known endings, or in {' or '.join(PACKED)}"
    )


def read_manifest(path: str | os.PathLike[str]) -> list[Utterance]:
    """Return the utterances of a manifest, in its order; relative paths are relative to the manifest's folder.

    Raises ``ManifestError``.
    """
    found = located(path)
    if not isinstance(found, Path | RemoteFile):
        raise ManifestError(f"{path}: not a manifest")
    lines = read_lines(found)
    name = found.name.lower()
    match name.removesuffix(".gz").rpartition(".")[2]:
        case "tsv":
            rows = list(_fairseq(found, lines))
        case "scp":
            rows = list(_kaldi(found, lines))
        case "jsonl" | "json":
            rows = list(_json_lines(found, lines))
        case _:
            raise ManifestError(f"{found}: a manifest is a .tsv (fairseq), .scp (Kaldi) or .jsonl file")
    if not rows:
        raise ManifestError(f"{found}: the manifest lists no utterances")
    return _unique(found, rows, "lines")


def _unique(where: File, rows: Iterable[tuple[int, Utterance]], what: str) -> list[Utterance]:
    """The utterances, whose keys must differ."""
    first: dict[str, int] = {}
    found = []
    for number, utterance in rows:
        if utterance.key in first:
            raise ManifestError(
                f"{where}: {what} {first[utterance.key]} and {number} have the same key {utterance.key!r}; "
                "keys must be unique"
            )
        first[utterance.key] = number
        found.append(utterance)
    return found


def _audio_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the audio files at any depth, and the folders that cannot be read."""
    files, unreadable = _files_below(folder)
    return [file for file in files if _is_audio(file)], unreadable


def _files_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files at any depth that are not hidden, and the folders that cannot be read.

    Each real folder is visited once, so that a circle of links ends.
    """
    found: list[Path] = []
    errors: list[OSError] = []
    seen: set[str] = set()
    for where, folders, names in os.walk(folder, followlinks=True, onerror=errors.append):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(where, name) for name in names if not name.startswith(".")]
    unreadable = [Path(error.filename) for error in errors]
    if folder in unreadable:
        raise ManifestError(f"{folder}: {errors[unreadable.index(folder)].strerror}")
    return sorted(found, key=lambda file: file.relative_to(folder).parts), sorted(unreadable)


def _is_audio(file: Path) -> bool:
    """Whether a file is audio or video, by its name and, where that is ambiguous, its content."""
    ending = file.suffix.lower()
    return ending in EXTENSIONS and (ending not in SHARED_EXTENSIONS or is_transport_stream(file))


def _is_remote_audio(file: RemoteFile) -> bool:
    if file.suffix in SHARED_EXTENSIONS:
        return begins_transport_stream(file.read(0, min(HEAD, file.source()[0])))
    return file.suffix in EXTENSIONS


def _keyed(root: Path, files: Sequence[Path]) -> list[Utterance]:
    names = [file.relative_to(root) if file.is_relative_to(root) else file for file in files]
    return [Utterance(as_utf8(key), file) for key, file in zip(_keys(names), files, strict=True)]


def _keys(names: Sequence[PurePath]) -> list[str]:
    """Return each name without its extension, or with it where that would be ambiguous."""
    stems = [name.with_suffix("") if name.name else name for name in names]
    count = Counter(stems)
    full = set(names)
    return [
        (name if count[stem] > 1 or (stem in full and stem != name) else stem).as_posix()
        for name, stem in zip(names, stems, strict=True)
    ]


def _text(value: object) -> str | None:
    return None if value is None else as_utf8(str(value))


def _fairseq(path: File, lines: Sequence[str]) -> Iterator[tuple[int, Utterance]]:
    if "\t" in lines[0]:
        raise ManifestError(f"{path}: the first line must be the folder of the files, got {lines[0].strip()!r}")
    root = resolve(_parent(path), lines[0].strip())
    rows = {number: line.split("\t")[0].strip("\r") for number, line in enumerate(lines[1:], start=2) if line.strip()}
    if isinstance(root, Path):
        yield from zip(rows, _keyed(root, [root / name for name in rows.values()]), strict=True)
        return
    if not isinstance(root, RemoteFile):
        raise ManifestError(f"{path}: its first line is no folder: {root}")
    keys = _keys([PurePosixPath(name) for name in rows.values()])
    for number, key in zip(rows, keys, strict=True):
        yield number, Utterance(as_utf8(key), resolve(root, rows[number]))


def _parent(path: File) -> File:
    return RemoteFile(path.url.rpartition("/")[0]) if isinstance(path, RemoteFile) else path.parent


def _kaldi(path: File, lines: Sequence[str]) -> Iterator[tuple[int, Utterance]]:
    speakers = _two_columns(resolve(_parent(path), "utt2spk"))
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        key, *rest = line.split(maxsplit=1)
        where = rest[0].strip() if rest else ""
        if not where:
            raise ManifestError(f"{path}:{number}: expected 'KEY PATH', got {line!r}")
        if where.endswith("|"):
            raise ManifestError(
                f"{path}:{number}: spintok does not run commands of a wav.scp; write the audio to a file"
            )
        yield number, Utterance(key=key, path=resolve(_parent(path), where), speaker=speakers.get(key))


def _two_columns(path: Path | Location) -> dict[str, str]:
    if not isinstance(path, Path | RemoteFile) or not exists(path):
        return {}
    rows: Iterable[list[str]] = (line.split(maxsplit=1) for line in read_lines(path))
    return {row[0]: row[1].strip() for row in rows if len(row) == 2}


def _json_lines(path: File, lines: Sequence[str]) -> Iterator[tuple[int, Utterance]]:
    folder = _parent(path)
    try:
        for number, record in json_objects(lines):
            if is_lhotse(record):
                yield number, _of_lhotse(number, record, folder)
                continue
            where, key = path_of(record), key_of(record)
            speaker, source = (_text(record.get(field)) for field in ("speaker", "source"))
            if where is None or key is None:
                raise ValueError(f"{number}: no path; one of the fields {', '.join(PATH_FIELDS)} must hold it")
            try:
                seconds = stated_duration(record)
            except ValueError as error:
                raise ValueError(f"{number}: {error}") from None
            yield number, Utterance(as_utf8(key), resolve(folder, where), speaker, source, seconds)
    except ValueError as error:
        raise ManifestError(f"{path}:{error}") from None


def _of_lhotse(number: int, record: Mapping[str, Any], folder: File) -> Utterance:
    try:
        return lhotse_utterance(record, folder)
    except ValueError as error:
        raise ValueError(f"{number}: {error}") from None
