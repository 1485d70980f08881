"""The record of a shard: the SHA-256 of its files, size and time of the audio files, and those that failed.

It is a hidden file beside the shard, so that programs that read all files of a folder find shards only. There is one
per shard because several processes may write shards of one folder. A shard without a record (written by an
earlier version of spintok, or copied without hidden files) is read unchecked.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from spintok._files import sha256_of, write_text
from spintok.corpus.job_summary import Failure
from spintok.corpus.token_formats import ShardError
from spintok.data.locations.base import Source

__all__ = [
    "FailedFile",
    "ShardRecord",
    "check_shard",
    "checksums",
    "failures_path",
    "parse_failures",
    "parse_record",
    "read_record",
    "record_path",
    "write_failures",
]

FailedFile = tuple[Failure, Source | None]
"""A file that could not be encoded, and what it was then."""


@dataclass(frozen=True)
class ShardRecord:
    """What is known of a shard.

    Attributes:
        sha256: SHA-256 digests in hexadecimal, by file name.
        sources: by the name of the utterance; those that could not be determined are left out.
    """

    sha256: Mapping[str, str]
    sources: Mapping[str, Source]

    def write(self, shard: Path) -> None:
        """Write the record of ``shard`` atomically."""
        content = {"spintok_shard": 1, "sha256": self.sha256, "sources": self.sources}
        # Names that are not UTF-8 are escaped.
        write_text(record_path(shard), json.dumps(content) + "\n")


def record_path(shard: Path) -> Path:
    """The record of a shard."""
    return shard.with_name(f".{shard.name}.record.json")


def read_record(shard: Path) -> ShardRecord | None:
    """The record of a shard; None when there is none. Raises ``ShardError`` when it is damaged."""
    path = record_path(shard)
    try:
        return parse_record(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None


def parse_record(content: bytes, name: str) -> ShardRecord:
    """The record that a file called ``name`` holds. Raises ``ShardError`` when it is damaged."""
    try:
        values = json.loads(content)
        sources = {name: (int(size), int(time)) for name, (size, time) in values["sources"].items()}
        return ShardRecord({str(name): str(digest) for name, digest in values["sha256"].items()}, sources)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ShardError(f"{name}: damaged ({error!r}); delete it and its shard, and encode again") from None


def failures_path(shard: Path) -> Path:
    """The list of the utterances that a finished shard lacks; only shards that lack some have it."""
    return shard.with_name(f".{shard.name}.failed.json")


def write_failures(shard: Path, failures: Sequence[Failure], sources: Mapping[str, Source | None]) -> None:
    """Write the failures of a shard, with the sources by key, or delete the list when there are none."""
    path = failures_path(shard)
    if failures:
        rows = [{**asdict(failure), "source": sources.get(failure.key)} for failure in failures]
        write_text(path, json.dumps(rows) + "\n")
    else:
        path.unlink(missing_ok=True)


def parse_failures(content: bytes) -> list[FailedFile]:
    """What ``write_failures`` wrote. Raises ``ShardError``."""
    try:
        return [
            (
                Failure(str(row["key"]), str(row["file_name"]), str(row["error"])),
                None if row["source"] is None else (int(row["source"][0]), int(row["source"][1])),
            )
            for row in json.loads(content)
        ]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ShardError(f"a list of failures is damaged ({error!r}); delete it and its shard") from None


def checksums(files: Sequence[Path]) -> dict[str, str]:
    """The SHA-256 of each file by name. Raises ``FileNotFoundError``."""
    return {file.name: sha256_of(file) for file in files}


def check_shard(shard: Path, files: Sequence[Path]) -> bool:
    """Compare a shard's files with its record; False when it has none.

    Raises:
        ShardError: a file is missing or differs from what was written.
    """
    record = read_record(shard)
    if record is None:
        return False
    for file in files:
        try:
            found = sha256_of(file)
        except FileNotFoundError:
            raise ShardError(f"{file}: missing; run spintok encode again") from None
        if found != record.sha256.get(file.name):
            raise ShardError(f"{file}: damaged: its SHA-256 is not the recorded one; delete it and encode again")
    return True
