"""The record of a shard: the SHA-256 of its files, and size and time of the audio files that it was made from.

It is a hidden file beside the shard, so that programs that read all files of a folder find shards only. There is one
per shard because several processes may write shards of one folder. A shard without a record (written by an
earlier version of spintok, or copied without hidden files) is read unchecked.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spintok._files import sha256_of, write_text
from spintok.corpus.token_formats import ShardError

__all__ = ["ShardRecord", "Source", "check_shard", "checksums", "read_record", "record_path", "source_of"]

Source = tuple[int, int]
"""Size in bytes and modification time in nanoseconds of an audio file."""


@dataclass(frozen=True)
class ShardRecord:
    """What is known of a shard.

    Attributes:
        sha256: in hexadecimal, by file name.
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
        content = json.loads(path.read_text(encoding="utf-8"))
        sources = {name: (int(size), int(time)) for name, (size, time) in content["sources"].items()}
        return ShardRecord({str(name): str(digest) for name, digest in content["sha256"].items()}, sources)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ShardError(f"{path}: damaged ({error!r}); delete it and its shard, and encode again") from None


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


def source_of(path: Path) -> Source | None:
    """Size and time of an audio file; None when it cannot be examined."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns
