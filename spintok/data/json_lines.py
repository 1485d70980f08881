"""JSON lines that describe utterances, as manifests, transcripts and token shards have them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath, PurePosixPath
from typing import Any

from spintok.data.locations.base import is_url

__all__ = ["KEY_FIELDS", "PATH_FIELDS", "json_objects", "key_of", "path_of"]

KEY_FIELDS = ("id", "key", "utt", "utt_id")
"""The fields that may hold an utterance's key, in order of precedence."""

PATH_FIELDS = ("path", "audio_filepath", "audio", "wav", "file_name")
"""The fields that may hold the path of an utterance's audio, in order of precedence."""


def json_objects(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Parse each line that is not blank: its number from 1, and its object.

    The lines have to be split at "\\n" only: JSON strings may contain other line separators of Unicode.
    Raises ``ValueError`` for a line that is not a JSON object; the message begins with the number of the line.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{number}: not a JSON object on one line ({error})") from None
        if not isinstance(record, dict):
            raise ValueError(f"{number}: not a JSON object on one line")
        yield number, record


def key_of(record: Mapping[str, Any]) -> str | None:
    """The utterance's key: the first of ``KEY_FIELDS``, otherwise its path without the extension, otherwise None."""
    for field in KEY_FIELDS:
        if record.get(field) is not None:
            return str(record[field])
    path = path_of(record)
    if path is None or not is_url(path):
        return None if path is None else PurePath(path).with_suffix("").as_posix()
    # A path would lose one of the slashes.
    return path.removesuffix(PurePosixPath(path).suffix)


def path_of(record: Mapping[str, Any]) -> str | None:
    """The path of the utterance's audio: the first of ``PATH_FIELDS`` that the record has; None if it is not text."""
    found = next((record[field] for field in PATH_FIELDS if field in record), None)
    return found if isinstance(found, str) and found else None
