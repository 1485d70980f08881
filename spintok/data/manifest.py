"""Lists of utterances: a folder of audio, or a manifest of fairseq, Kaldi, or JSON lines."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from spintok.data.audio import EXTENSIONS
from spintok.data.ffmpeg import SHARED_EXTENSIONS, is_transport_stream
from spintok.data.json_lines import PATH_FIELDS, json_objects, key_of, path_of
from spintok.frames import SAMPLE_RATE

__all__ = ["ManifestError", "Utterance", "is_manifest", "read_manifest", "scan"]

_SUFFIXES = (".tsv", ".scp", ".jsonl", ".json")


class ManifestError(ValueError):
    """A list of utterances that cannot be used; the message names the file, the line and the cause."""


@dataclass(frozen=True)
class Utterance:
    """One recording.

    Attributes:
        key: unique in its list.
        path: the audio file.
        speaker: if known.
        source: the corpus that it is from, if known.
        seconds: the duration that the list states.
    """

    key: str
    path: Path
    speaker: str | None = None
    source: str | None = None
    seconds: float | None = None


def scan(source: str | os.PathLike[str]) -> list[Utterance]:
    """Return the utterances of a file, a folder, or a manifest, in an order that depends on their names only.

    A folder is searched at any depth, following links. The key of a file is its path below the folder without the
    extension, or with it if two files would share a key. A subfolder that cannot be read is listed like a file, so
    that reading it fails with the cause. Manifests: fairseq ``.tsv``, Kaldi ``wav.scp``, ``.jsonl``.

    Raises ``ManifestError``.
    """
    path = Path(source)
    if path.is_dir():
        files, unreadable = _audio_below(path)
        if not files and not unreadable:
            raise ManifestError(
                f"{path}: no audio files in this folder: no name ends in .wav, .flac, .mp3, .m4a or another of the "
                f"{len(EXTENSIONS)} known endings"
            )
        folders = [Utterance(_utf8(f"{folder.relative_to(path).as_posix()}/"), folder) for folder in unreadable]
        return [*_keyed(path, files), *folders]
    if not path.exists():
        raise ManifestError(f"{path}: no such file or folder")
    if is_manifest(path):
        return read_manifest(path)
    return [Utterance(key=_utf8(path.stem), path=path)]


def is_manifest(path: Path) -> bool:
    """Return whether a file is a manifest rather than audio, by its name."""
    return path.suffix.lower() in _SUFFIXES


def read_manifest(path: str | os.PathLike[str]) -> list[Utterance]:
    """Return the utterances of a manifest, in its order; relative paths are relative to the manifest's folder.

    Raises ``ManifestError``.
    """
    path = Path(path)
    lines = _lines(path)
    match path.suffix.lower():
        case ".tsv":
            rows = list(_fairseq(path, lines))
        case ".scp":
            rows = list(_kaldi(path, lines))
        case ".jsonl" | ".json":
            rows = list(_json_lines(path, lines))
        case _:
            raise ManifestError(f"{path}: a manifest is a .tsv (fairseq), .scp (Kaldi) or .jsonl file")
    if not rows:
        raise ManifestError(f"{path}: the manifest lists no utterances")
    first_line: dict[str, int] = {}
    for number, utterance in rows:
        if utterance.key in first_line:
            raise ManifestError(
                f"{path}: lines {first_line[utterance.key]} and {number} have the same key {utterance.key!r}; "
                "keys must be unique"
            )
        first_line[utterance.key] = number
    return [utterance for _, utterance in rows]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror or error}") from None


def _audio_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the audio files at any depth, and the folders that cannot be read.

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
        found += [Path(where, name) for name in names if _is_audio(where, name)]
    unreadable = [Path(error.filename) for error in errors]
    if folder in unreadable:
        raise ManifestError(f"{folder}: {errors[unreadable.index(folder)].strerror}")
    return sorted(found, key=lambda file: file.relative_to(folder).parts), sorted(unreadable)


def _is_audio(folder: str, name: str) -> bool:
    """Whether a file that is not hidden is audio or video, by its name and, where that is ambiguous, its content."""
    ending = os.path.splitext(name)[1].lower()  # noqa: PTH122
    if name.startswith(".") or ending not in EXTENSIONS:
        return False
    return ending not in SHARED_EXTENSIONS or is_transport_stream(Path(folder, name))


def _keyed(root: Path, files: Sequence[Path]) -> list[Utterance]:
    names = [file.relative_to(root) if file.is_relative_to(root) else file for file in files]
    return [Utterance(_utf8(key), file) for key, file in zip(_keys(names), files, strict=True)]


def _keys(names: Sequence[PurePath]) -> list[str]:
    """Return each name without its extension, or with it where that would be ambiguous."""
    stems = [name.with_suffix("") if name.name else name for name in names]
    count = Counter(stems)
    full = set(names)
    return [
        (name if count[stem] > 1 or (stem in full and stem != name) else stem).as_posix()
        for name, stem in zip(names, stems, strict=True)
    ]


def _seconds(record: Mapping[str, object]) -> float | None:
    """The duration that a line states as NeMo (``duration``, in seconds) or this library (``num_samples``) does."""
    for field, rate in (("duration", 1), ("num_samples", SAMPLE_RATE)):
        value = record.get(field)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
            return value / rate
    return None


def _text(value: object) -> str | None:
    return None if value is None else _utf8(str(value))


def _utf8(text: str) -> str:
    """Return the text with bytes and surrogates that are not UTF-8 in hexadecimal, as shards are UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _fairseq(path: Path, lines: list[str]) -> Iterator[tuple[int, Utterance]]:
    root = path.parent / lines[0].strip()
    rows = {number: line.split("\t")[0].strip("\r") for number, line in enumerate(lines[1:], start=2) if line.strip()}
    yield from zip(rows, _keyed(root, [root / name for name in rows.values()]), strict=True)


def _kaldi(path: Path, lines: list[str]) -> Iterator[tuple[int, Utterance]]:
    speakers = _two_columns(path.with_name("utt2spk"))
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
        yield number, Utterance(key=key, path=path.parent / where, speaker=speakers.get(key))


def _two_columns(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    rows: Iterable[list[str]] = (line.split(maxsplit=1) for line in _lines(path))
    return {row[0]: row[1].strip() for row in rows if len(row) == 2}


def _json_lines(path: Path, lines: list[str]) -> Iterator[tuple[int, Utterance]]:
    try:
        for number, record in json_objects(lines):
            where, key = path_of(record), key_of(record)
            speaker, source = (_text(record.get(field)) for field in ("speaker", "source"))
            if where is None or key is None:
                raise ValueError(f"{number}: no path; one of the fields {', '.join(PATH_FIELDS)} must hold it")
            yield number, Utterance(_utf8(key), path.parent / where, speaker, source, _seconds(record))
    except ValueError as error:
        raise ManifestError(f"{path}:{error}") from None
