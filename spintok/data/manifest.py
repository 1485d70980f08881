"""Lists of utterances: a folder of audio, or a manifest of fairseq, Kaldi, or JSON lines."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from spintok.data.audio import EXTENSIONS
from spintok.data.json_lines import PATH_FIELDS, json_objects, key_of, path_of

__all__ = ["ManifestError", "Utterance", "read_manifest", "scan"]


class ManifestError(ValueError):
    """A list of utterances that cannot be used; the message names the file, the line and the cause."""


@dataclass(frozen=True)
class Utterance:
    """One recording: a key that is unique in its list, a path, and the speaker when known."""

    key: str
    path: Path
    speaker: str | None = None


def scan(source: str | os.PathLike[str]) -> list[Utterance]:
    """The utterances of a file, a folder, or a manifest, in an order that depends on their names only.

    A folder is searched at any depth, following links; a key is the path below it without the extension
    (with it, where two files would share a key). Manifests: fairseq ``.tsv``, Kaldi ``wav.scp``, ``.jsonl``.
    """
    path = Path(source)
    if path.is_dir():
        files = _audio_below(path)
        if not files:
            known = " ".join(sorted(EXTENSIONS))
            raise ManifestError(f"{path}: no audio files in this folder (looked for {known})")
        return _keyed(path, files)
    if not path.exists():
        raise ManifestError(f"{path}: no such file or folder")
    if path.suffix.lower() in (".tsv", ".scp", ".jsonl", ".json") or path.name == "wav.scp":
        return read_manifest(path)
    return [Utterance(key=path.stem, path=path)]


def read_manifest(path: str | os.PathLike[str]) -> list[Utterance]:
    """The utterances of a manifest, in its own order; relative paths are taken from the manifest's folder."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path}: not a text file in UTF-8") from None
    match path.suffix.lower():
        case ".tsv":
            utterances = list(_fairseq(path, lines))
        case ".scp":
            utterances = list(_kaldi(path, lines))
        case ".jsonl" | ".json":
            utterances = list(_json_lines(path, lines))
        case _:
            raise ManifestError(f"{path}: a manifest is a .tsv (fairseq), .scp (Kaldi) or .jsonl file")
    if not utterances:
        raise ManifestError(f"{path}: the manifest lists no utterances")
    twice = [key for key, count in Counter(u.key for u in utterances).items() if count > 1]
    if twice:
        raise ManifestError(f"{path}: the key {twice[0]!r} stands on {len(twice)} or more lines; keys must be unique")
    return utterances


def _audio_below(folder: Path) -> list[Path]:
    """Audio files at any depth, each real folder visited once, so that a circle of links ends."""
    found: list[Path] = []
    seen: set[str] = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(where, name)
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122
        ]
    return sorted(found, key=lambda file: file.relative_to(folder).parts)


def _keyed(root: Path, files: list[Path]) -> list[Utterance]:
    relative = [file.relative_to(root) for file in files]
    stems = Counter(name.with_suffix("") for name in relative)
    keys = [name if stems[name.with_suffix("")] > 1 else name.with_suffix("") for name in relative]
    return [Utterance(key=key.as_posix(), path=file) for key, file in zip(keys, files, strict=True)]


def _fairseq(path: Path, lines: list[str]) -> Iterator[Utterance]:
    if not lines:
        return
    root = path.parent / lines[0].strip()
    names = [line.split("\t")[0] for line in lines[1:] if line.strip()]
    yield from _keyed(root, [root / name for name in names])


def _kaldi(path: Path, lines: list[str]) -> Iterator[Utterance]:
    speakers = _two_columns(path.with_name("utt2spk"))
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        key, _, where = line.strip().partition(" ")
        where = where.strip()
        if not where:
            raise ManifestError(f"{path}:{number}: expected 'KEY PATH', got {line!r}")
        if where.endswith("|"):
            raise ManifestError(
                f"{path}:{number}: spintok does not run commands of a wav.scp; write the audio to a file"
            )
        yield Utterance(key=key, path=path.parent / where, speaker=speakers.get(key))


def _two_columns(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    rows: Iterable[list[str]] = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines())
    return {row[0]: row[1].strip() for row in rows if len(row) == 2}


def _json_lines(path: Path, lines: list[str]) -> Iterator[Utterance]:
    try:
        for number, record in json_objects(lines):
            where, key, speaker = path_of(record), key_of(record), record.get("speaker")
            if where is None or key is None:
                raise ValueError(f"{number}: no path; one of the fields {', '.join(PATH_FIELDS)} must hold it")
            yield Utterance(key, path.parent / where, None if speaker is None else str(speaker))
    except ValueError as error:
        raise ManifestError(f"{path}:{error}") from None
