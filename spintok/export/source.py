"""Read the token folders of one tokenizer as one corpus, in order, with unique keys, one shard in memory."""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from spintok.corpus.folder import shard_paths
from spintok.corpus.token_formats import Record
from spintok.corpus.tokens import grid_of, read_corpus
from spintok.export.errors import ExportError
from spintok.frames import RECEPTIVE_FIELD, FrameGrid

__all__ = ["Header", "Source", "open_source", "unique"]


@dataclass(frozen=True)
class Header:
    """What all tokens of an export have in common.

    Attributes:
        tokenizer: the name of the tokenizer.
        fingerprint: identifies its weights and configuration.
        codebooks: the number of codewords of each exported codebook by name, the primary one first.
        frame_rate: frames per second.
        dedup: whether tokens are stored as runs with durations, otherwise as one code per frame.
        receptive_field: samples that one frame reads.
    """

    tokenizer: str
    fingerprint: str
    codebooks: Mapping[str, int]
    frame_rate: int
    dedup: bool
    receptive_field: int = RECEPTIVE_FIELD

    @property
    def grid(self) -> FrameGrid:
        """Where the frames lie. Raises ``ValueError`` for a rate that no tokenizer has."""
        return grid_of({"frame_rate": self.frame_rate, "receptive_field": self.receptive_field})

    @property
    def codebook(self) -> str:
        """The name of the first codebook."""
        return next(iter(self.codebooks))


@dataclass(frozen=True)
class Source:
    """A corpus of token folders.

    Attributes:
        folders: the token folders, in the order of the corpus.
        header: the header of its tokens; ``dedup`` is a default that a target may change.
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
                    f"{record.key!r} has no tokens (shorter than one frame); add --skip-empty to leave it out"
                )


def open_source(folders: Sequence[Path], codebooks: Sequence[str] | None = None) -> Source:
    """The corpus in token folders.

    Args:
        folders: the token folders, in the order of the corpus.
        codebooks: names of the codebooks to export; all by default.

    Raises:
        ExportError: no folder, folders of different tokenizers, an unknown codebook, or an unfinished folder.
        CorpusError: a folder is not a token folder.
    """
    if not folders:
        raise ExportError("name at least one folder that spintok encode wrote")
    described = [(folder, *_describe(folder)) for folder in folders]
    first = described[0][1]
    digest = hashlib.sha256()
    for folder, header, _ in described:
        if (header.fingerprint, header.codebooks) != (first.fingerprint, first.codebooks):
            raise ExportError(f"{folder}: holds tokens of another tokenizer than {folders[0]}; export them separately")
    for name in codebooks or ():
        if name not in first.codebooks:
            raise ExportError(f"{folders[0]}: has no codebook {name!r}, only {', '.join(first.codebooks)}")
    for _, _, shards in described:
        for path in shards:
            stat = path.stat()
            digest.update(f"{path.name}\t{stat.st_size}\t{stat.st_mtime_ns}\n".encode())
    chosen = {name: first.codebooks[name] for name in codebooks or first.codebooks}
    return Source(tuple(folders), replace(first, codebooks=chosen), digest.hexdigest())


def _describe(folder: Path) -> tuple[Header, list[Path]]:
    """The header of a token folder with all its codebooks, and its shards."""
    found, _ = read_corpus(folder)
    shards = shard_paths(folder, "tokens", found)
    try:
        sizes = {str(name): int(size) for name, size in found["codebooks"].items()}
        grid = grid_of(found)
        header = Header(str(found["tokenizer"]), str(found["fingerprint"]), sizes, grid.rate, True, grid.reach)
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(f"{folder}/tokenizer.json: damaged ({error!r})") from None
    return header, shards


def unique(records: Iterable[Record]) -> Iterator[Record]:
    """Pass records through; raise ``ExportError`` when a key comes a second time.

    Keys are kept in a temporary SQLite file, so memory does not grow with the corpus.
    """
    with closing(sqlite3.connect("", isolation_level=None)) as seen:
        seen.execute("PRAGMA journal_mode=OFF")
        seen.execute("PRAGMA synchronous=OFF")
        seen.execute("CREATE TABLE keys (key BLOB PRIMARY KEY) WITHOUT ROWID")
        seen.execute("BEGIN")
        for record in records:
            try:
                # Names that are not UTF-8 have lone surrogates, which SQLite has no text for.
                seen.execute("INSERT INTO keys VALUES (?)", (record.key.encode("utf-8", "surrogateescape"),))
            except sqlite3.IntegrityError:
                raise ExportError(f"two utterances have the key {record.key!r}; keys must be unique") from None
            yield record
