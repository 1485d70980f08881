"""Read the token folders of one tokenizer as one corpus, in order, with unique keys, one shard in memory."""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from spintok.corpus.token_formats import Record
from spintok.corpus.tokens import read_corpus
from spintok.export.errors import ExportError

__all__ = ["Header", "Source", "open_source", "unique"]


@dataclass(frozen=True)
class Header:
    """What all tokens of an export have in common.

    Attributes:
        tokenizer: the name of the tokenizer.
        fingerprint: of its weights and configuration.
        codebooks: the number of codewords of each exported codebook by name, the primary one first.
        frame_rate: frames per second.
        dedup: whether tokens are stored as runs with durations, otherwise as one code per frame.
    """

    tokenizer: str
    fingerprint: str
    codebooks: Mapping[str, int]
    frame_rate: int
    dedup: bool

    @property
    def codebook(self) -> str:
        """The name of the first codebook."""
        return next(iter(self.codebooks))


@dataclass(frozen=True)
class Source:
    """A corpus of token folders.

    Attributes:
        folders: in the order of the corpus.
        header: of its tokens; ``dedup`` is a default that a target may change.
        state: a digest of the shards' names, sizes and modification times, by which an export notices changes.
    """

    folders: tuple[Path, ...]
    header: Header
    state: str

    def records(self, *, skip_empty: bool = False) -> Iterator[Record]:
        """All utterances in order, with the codebooks of ``header``.

        Raises ``ExportError`` for two utterances with one key and, unless ``skip_empty``, for one without tokens.
        """
        found = (record for folder in self.folders for record in read_corpus(folder)[1])
        names = tuple(self.header.codebooks)
        for record in unique(found):
            if record.tokens[names[0]].num_frames:
                yield replace(record, tokens={name: record.tokens[name] for name in names})
            elif not skip_empty:
                raise ExportError(
                    f"{record.key!r} has no tokens (less than 25 ms of audio); add --skip-empty to leave it out"
                )


def open_source(folders: Sequence[Path], codebooks: Sequence[str] | None = None) -> Source:
    """The corpus in token folders.

    Args:
        folders: in the order of the corpus.
        codebooks: names of the codebooks to export; all by default.

    Raises:
        ExportError: no folder, folders of different tokenizers, an unknown codebook, or an unfinished folder.
        CorpusError: a folder is not a token folder.
    """
    if not folders:
        raise ExportError("name at least one folder that spintok encode wrote")
    described = [read_corpus(folder)[0] for folder in folders]
    first = described[0]
    for folder, description in zip(folders, described, strict=True):
        if (description["fingerprint"], description["codebooks"]) != (first["fingerprint"], first["codebooks"]):
            raise ExportError(f"{folder}: holds tokens of another tokenizer than {folders[0]}; export them separately")
    sizes = dict(first["codebooks"])
    for name in codebooks or ():
        if name not in sizes:
            raise ExportError(f"{folders[0]}: has no codebook {name!r}, only {', '.join(sizes)}")
    chosen = {name: sizes[name] for name in codebooks or sizes}
    digest = hashlib.sha256()
    for folder, description in zip(folders, described, strict=True):
        shards = sorted(folder.glob(f"tokens-*.{description['format']}"))
        expected = -(-description["utterances"] // description["shard_size"])
        if len(shards) != expected:
            raise ExportError(f"{folder}: {len(shards)} of {expected} shards; run spintok encode again to finish it")
        for path in shards:
            stat = path.stat()
            digest.update(f"{path.name}\t{stat.st_size}\t{stat.st_mtime_ns}\n".encode())
    header = Header(first["tokenizer"], first["fingerprint"], chosen, int(first["frame_rate"]), dedup=True)
    return Source(tuple(folders), header, digest.hexdigest())


def unique(records: Iterable[Record]) -> Iterator[Record]:
    """Pass records through; raise ``ExportError`` when a key comes a second time.

    Keys are kept in a temporary SQLite file, so memory does not grow with the corpus.
    """
    with closing(sqlite3.connect("", isolation_level=None)) as seen:
        seen.execute("PRAGMA journal_mode=OFF")
        seen.execute("PRAGMA synchronous=OFF")
        seen.execute("CREATE TABLE keys (key TEXT PRIMARY KEY) WITHOUT ROWID")
        seen.execute("BEGIN")
        for record in records:
            try:
                seen.execute("INSERT INTO keys VALUES (?)", (record.key,))
            except sqlite3.IntegrityError:
                raise ExportError(f"two utterances have the key {record.key!r}; keys must be unique") from None
            yield record
