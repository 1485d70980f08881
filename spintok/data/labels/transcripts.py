"""The text of each utterance, read from JSON lines or from Kaldi's ``text`` and looked up by key."""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from spintok.data.json_lines import json_objects, key_of

__all__ = ["TranscriptError", "Transcripts", "manifest_texts"]


class TranscriptError(ValueError):
    """Transcripts or a lexicon that cannot be used; the message names the file, the line and the cause."""


class Transcripts(Mapping[str, str]):
    """Text by utterance key.

    The file has JSON lines with a key (see ``json_lines.key_of``) and ``text``, so a manifest with texts will do; or
    lines ``KEY WORD WORD ...``. JSON lines without a text are skipped. The texts are kept in a temporary SQLite file,
    so memory does not grow with their number.

    Attributes:
        path: the file.
        digest: SHA-256 of its content.

    Raises:
        TranscriptError: the file cannot be read, has no transcripts, or has two of one key.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        digest = hashlib.sha256()
        self._texts = sqlite3.connect("", isolation_level=None)
        self._texts.execute("PRAGMA journal_mode=OFF")
        self._texts.execute("CREATE TABLE texts (key TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID")
        self._texts.execute("BEGIN")

        def hashed(lines: Iterable[str]) -> Iterator[str]:
            for line in lines:
                digest.update(line.encode())
                yield line

        try:
            with path.open(encoding="utf-8", newline="\n") as lines:
                json_lines = path.suffix.lower() in (".jsonl", ".json") or lines.read(1) == "{"
                lines.seek(0)
                for number, key, text in _from_json(hashed(lines)) if json_lines else _from_kaldi(hashed(lines)):
                    try:
                        self._texts.execute("INSERT INTO texts VALUES (?, ?)", (key, text))
                    except sqlite3.IntegrityError:
                        raise ValueError(f"{number}: a second text for the key {key!r}") from None
        except FileNotFoundError:
            raise TranscriptError(f"{path}: no such file") from None
        except (UnicodeError, IsADirectoryError):
            raise TranscriptError(f"{path}: not a text file in UTF-8") from None
        except ValueError as error:
            raise TranscriptError(f"{path}:{error}") from None
        if not len(self):
            raise TranscriptError(f"{path}: no transcripts; a line of JSON needs the fields id and text")
        self.digest = digest.hexdigest()

    def __getitem__(self, key: str) -> str:
        row = self._texts.execute("SELECT text FROM texts WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        return str(row[0])

    def __iter__(self) -> Iterator[str]:
        return (str(row[0]) for row in self._texts.execute("SELECT key FROM texts"))

    def __len__(self) -> int:
        return int(self._texts.execute("SELECT count(*) FROM texts").fetchone()[0])

    def text(self, key: str) -> str:
        """The text of an utterance. Raises ``TranscriptError`` if there is none."""
        try:
            return self[key]
        except KeyError:
            raise TranscriptError(f"{self.path}: no text for the utterance {key!r}") from None


def manifest_texts(path: Path) -> dict[str, str]:
    """The texts of a manifest of JSON lines by utterance key; empty if it has none. Raises ``TranscriptError``."""
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            return {key: text for _, key, text in _from_json(lines)}
    except ValueError as error:
        raise TranscriptError(f"{path}:{error}") from None


def _from_json(lines: Iterable[str]) -> Iterator[tuple[int, str, str]]:
    for number, record in json_objects(lines):
        key, text = key_of(record), record.get("text")
        if text is None:
            continue
        if key is None or not isinstance(text, str):
            raise ValueError(f"{number}: expected a JSON object with an id and a text")
        yield number, key, text


def _from_kaldi(lines: Iterable[str]) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(lines, start=1):
        key, _, text = line.strip().partition(" ")
        if key:
            yield number, key, text.strip()
