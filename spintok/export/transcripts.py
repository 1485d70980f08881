"""The text of each utterance, from JSON lines, looked up by key."""

import hashlib
import json
import sqlite3
from pathlib import Path

from spintok.export.errors import ExportError

__all__ = ["Transcripts"]

_KEYS = ("key", "id", "utt", "utt_id")


class Transcripts:
    """``{"key": ..., "text": ...}`` a line; ``id``, ``utt`` and ``utt_id`` are read as ``key`` too.

    The texts lie in a temporary file of SQLite's, so that memory does not grow with the corpus. ``digest`` is the
    SHA-256 of the lines.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        digest = hashlib.sha256()
        self._texts = sqlite3.connect("", isolation_level=None)
        self._texts.execute("PRAGMA journal_mode=OFF")
        self._texts.execute("CREATE TABLE texts (key TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID")
        self._texts.execute("BEGIN")
        try:
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, start=1):
                    digest.update(line.encode())
                    if line.strip():
                        self._add(number, line)
        except FileNotFoundError:
            raise ExportError(f"{path}: no such file") from None
        self.digest = digest.hexdigest()

    def text(self, key: str) -> str:
        """The text of an utterance. Raises ``ExportError`` when there is none."""
        found = self._texts.execute("SELECT text FROM texts WHERE key = ?", (key,)).fetchone()
        if found is None:
            raise ExportError(f"{self.path}: no text for the utterance {key!r}")
        return str(found[0])

    def _add(self, number: int, line: str) -> None:
        try:
            row = json.loads(line)
            key = next(row[name] for name in _KEYS if name in row)
            self._texts.execute("INSERT INTO texts VALUES (?, ?)", (str(key), str(row["text"])))
        except sqlite3.IntegrityError:
            raise ExportError(f"{self.path}:{number}: the key {key!r} comes twice") from None
        except (ValueError, KeyError, TypeError, StopIteration):
            raise ExportError(f"{self.path}:{number}: a line must be a JSON object with a key and a text") from None
