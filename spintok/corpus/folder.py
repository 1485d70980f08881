"""The output folder of a job: its lock, its description, and which of its files spintok wrote."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from spintok._files import atomic, lock, remove_orphans, write_text
from spintok.corpus.errors import CorpusError
from spintok.corpus.job_options import JobOptions
from spintok.corpus.listing import LIST_PATTERN, arranged, list_bytes, list_digest, list_name
from spintok.corpus.parts import cut, shard_count
from spintok.corpus.shard_writer import ShardWriter
from spintok.data.audio import decoder_version
from spintok.data.manifest import Utterance

__all__ = [
    "MARKERS",
    "README_MARK",
    "WORK",
    "CorpusError",
    "check_same",
    "describe",
    "holds",
    "lock_folder",
    "merged",
    "parse_description",
    "prepare_folder",
    "read_description",
    "refuse_other_kind",
    "shard_paths",
]

MARKERS = {"tokens": ("tokenizer.json", "spintok_tokens"), "features": ("features.json", "spintok_features")}
"""The file that describes a folder's shards, and the field in it that holds the version of the layout."""
_LAYOUT = 1
WORK = ".work"
"""The folder in which several workers keep leases and unfinished shards."""
_MAY_CHANGE = ("utterances", "utterance_list", "shard_starts", "decoder")
_SIZE = "shards of another size"
_PART = r"(-\d{5,}-of-(\d{5,}))?"
README_MARK = "# Written by spintok encode"


@contextmanager
def lock_folder(output: Path, options: JobOptions) -> Iterator[None]:
    """Keep other jobs out of a folder: all of them, or of several workers those that are none and those of its rank.

    Raises ``CorpusError`` when another process holds the folder.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(output / ".lock", shared=options.ranks > 1 or options.shared))
        except BlockingIOError:
            raise CorpusError(
                f"{output}: another spintok encode is writing here; wait for it, or name another output folder"
            ) from None
        if options.ranks > 1:
            try:
                stack.enter_context(lock(output / f".lock{options.part}"))
            except BlockingIOError:
                raise CorpusError(
                    f"{output}: another process is rank {options.rank} of {options.ranks} here; give each its own rank"
                ) from None
        yield


def prepare_folder(
    output: Path, writer: ShardWriter[Any], utterances: Sequence[Utterance], options: JobOptions
) -> list[Sequence[Utterance]]:
    """Check that the folder fits the job, and describe it; the caller holds its lock.

    Returns the utterances of each shard. Raises ``CorpusError`` when it holds something else.
    """
    with lock(output / ".lock-description", wait=True):
        remove_orphans(output)
        if options.ranks == 1:
            # Nobody else is here, so what workers left is of dead ones.
            shutil.rmtree(output / WORK, ignore_errors=True)
        marker = output / MARKERS[writer.stem][0]
        # Also before overwriting: another program's tokenizer.json is not ours to replace.
        found = read_description(output, writer.stem) if marker.exists() else None
        if found is None:
            foreign = next((path for path in output.iterdir() if _ours(path, writer.stem, hidden=False)), None)
            if foreign is not None:
                raise CorpusError(f"{output}: holds {foreign.name} without a {marker.name}; name another output folder")
        kept = None if options.overwrite else found
        if kept is not None:
            utterances = arranged(str(output), utterances, kept, _content(output / list_name(kept)))
        description, parts = describe(writer, utterances, options, kept)
        if kept is None:
            for path in output.iterdir():
                if _ours(path, writer.stem):
                    path.unlink()
        else:
            check_same(str(output), writer, kept, description)
            description = merged(kept, description)
        _remove_other_parts(output, options)
        _write_list(output, utterances, list_name(description))
        if description != found:
            write_text(marker, json.dumps(description, indent=2) + "\n")
        for path in output.glob(".list-*"):
            if path.name != list_name(description) and re.fullmatch(LIST_PATTERN, path.name):
                path.unlink()
        _write_readme(output, writer)
    return parts


def describe(
    writer: ShardWriter[Any], utterances: Sequence[Utterance], options: JobOptions, found: Mapping[str, Any] | None
) -> tuple[dict[str, Any], list[Sequence[Utterance]]]:
    """The description of a job's folder, and the utterances of each shard; ``found`` describes what it holds."""
    parts, fields = cut(utterances, options, found)
    description = {
        **writer.describe(),
        **fields,
        "utterances": len(utterances),
        "utterance_list": list_digest(utterances),
    }
    if (decoder := decoder_version(utterance.path for utterance in utterances)) is not None:
        description["decoder"] = decoder
    return description, parts


def merged(found: Mapping[str, Any], description: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a folder that a job continues."""
    return {**found, **{name: description[name] for name in _MAY_CHANGE if name in description}}


def refuse_other_kind(output: Path, stem: str) -> None:
    """Raise ``CorpusError`` when a folder for ``stem`` holds shards of the other kind."""
    for other, (marker, field) in MARKERS.items():
        if other != stem and (_field(output / marker, field) or any(output.glob(f"{other}-*"))):
            raise CorpusError(f"{output}: holds {other}, which {stem} cannot join; name another output folder")


def read_description(folder: Path, stem: str) -> dict[str, Any]:
    """The description of a folder of "tokens" or "features". Raises ``CorpusError``."""
    marker = MARKERS[stem][0]
    try:
        content = (folder / marker).read_bytes()
    except NotADirectoryError:
        raise CorpusError(f"{folder}: not a folder; name a folder of {stem} that spintok encode wrote") from None
    except FileNotFoundError:
        if re.fullmatch(r"\w+:", folder.parts[0] if folder.parts else ""):
            raise CorpusError(f"{folder}: folders of {stem} are read from a disk: copy it here first") from None
        if not folder.exists():
            raise CorpusError(f"{folder}: no such folder") from None
        raise CorpusError(f"{folder}: no {marker}, so this is not a folder of {stem}") from None
    return parse_description(content, f"{folder}/{marker}", stem)


def parse_description(content: bytes, name: str, stem: str) -> dict[str, Any]:
    """The description that a file called ``name`` holds. Raises ``CorpusError``."""
    field = MARKERS[stem][1]
    try:
        description = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{name}: damaged ({error})") from None
    if not isinstance(description, dict) or field not in description:
        raise CorpusError(f"{name}: not written by spintok encode, so this is not a folder of {stem}")
    if description[field] != _LAYOUT:
        raise CorpusError(f"{name}: layout {description[field]!r}; this release reads {_LAYOUT}")
    return description


def shard_paths(folder: Path, stem: str, description: dict[str, Any]) -> list[Path]:
    """All shards of a described folder in order. Raises ``CorpusError`` when the description or a shard is missing."""
    suffix = description.get("format")
    try:
        count = shard_count(description)
    except ValueError as error:
        raise CorpusError(f"{folder}/{MARKERS[stem][0]}: damaged ({error})") from None
    if not isinstance(suffix, str) or not re.fullmatch("[a-z]+", suffix):
        raise CorpusError(f"{folder}/{MARKERS[stem][0]}: damaged (shards in the format {suffix!r})")
    present = {path.name for path in folder.glob(f"{stem}-*.{suffix}")}
    if len(present) < count:
        raise CorpusError(f"{folder}: {len(present)} of {count} shards; run spintok encode again to finish it")
    names = [f"{stem}-{index:05d}.{suffix}" for index in range(count)]
    missing = [name for name in names if name not in present]
    if missing:
        raise CorpusError(f"{folder}: {missing[0]} is missing; run spintok encode again to finish it")
    return [folder / name for name in names]


def check_same(output: str, writer: ShardWriter[Any], found: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    """Raise ``CorpusError`` when the folder holds something else than the job would write."""
    for name, what in {**writer.mismatches, "shard_size": _SIZE, "shard_seconds": _SIZE}.items():
        if found.get(name) != description.get(name):
            raise CorpusError(f"{output}: holds {what}; name another output folder, or add --overwrite")
    decoders = found.get("decoder"), description.get("decoder")
    if None not in decoders and decoders[0] != decoders[1]:
        raise CorpusError(
            f"{output}: holds {writer.stem} of audio that {decoders[0]} decoded, and here is {decoders[1]}, which may "
            "decode it differently; use the same version, name another output folder, or add --overwrite"
        )


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _write_list(output: Path, utterances: Sequence[Utterance], name: str) -> None:
    # Its name says what it holds.
    if not (output / name).exists():
        with atomic(output / name) as temporary:
            temporary.write_bytes(list_bytes(utterances))


def _ours(path: Path, stem: str, *, hidden: bool = True) -> bool:
    """Whether a job wrote this file, by its name; ``hidden`` also counts journals, records and scratch files."""
    return holds(path.name, stem, hidden=hidden) and not path.is_dir()


def holds(name: str, stem: str, *, hidden: bool = False) -> bool:
    """Whether a name is that of a file of shards; ``hidden`` also counts journals, records and scratch files."""
    shard = rf"{stem}-\d{{5,}}\.(jsonl|parquet|km|tsv|safetensors)"
    pattern = rf"{shard}|failed{_PART}\.jsonl|stats{_PART}\.json"
    if hidden:
        pattern += rf"|{LIST_PATTERN}|\.{shard}\.(journal|record\.json|failed\.json|data|partial)"
    return re.fullmatch(pattern, name) is not None


def _remove_other_parts(output: Path, options: JobOptions) -> None:
    """Delete failure lists and statistics of earlier jobs that were divided among another number of ranks."""
    for path in output.iterdir():
        found = re.fullmatch(rf"(failed|stats){_PART}\.jsonl?", path.name)
        if found is not None and int(found[3] or 1) != options.ranks:
            path.unlink()


def _write_readme(output: Path, writer: ShardWriter[Any]) -> None:
    """A dataset card for ``datasets.load_dataset(folder)``; somebody else's README.md stays."""
    readme, text = output / "README.md", writer.dataset_card(README_MARK)
    ours = readme.is_file() and README_MARK in readme.read_text(encoding="utf-8", errors="replace")[:100]
    if text is None:
        if ours:
            readme.unlink()
    elif ours or not readme.exists():
        write_text(readme, text)


def _field(path: Path, field: str) -> bool:
    """Whether a JSON object in a file has a field."""
    try:
        return field in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False
