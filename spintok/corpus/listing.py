"""The list of a folder: which utterance has which place, so that files can be added anywhere.

The first run decides the order. Utterances that are listed later follow at the end, in the order in which they are
listed then, whatever their names: places never change, so what is encoded stays as it is. The list is a hidden file of
JSON lines ``[key, path]``, compressed, whose name has the beginning of its digest: a run that is killed while the list
grows leaves that of the description untouched.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from spintok._files import digest
from spintok.corpus.errors import CorpusError
from spintok.data.locations.parquet import ParquetRow
from spintok.data.locations.tar import TarMember
from spintok.data.utterance import Utterance

__all__ = ["LIST_PATTERN", "arranged", "list_bytes", "list_digest", "list_name"]

LIST_PATTERN = r"\.list-[0-9a-f]{16}\.jsonl\.gz"

_Row = tuple[str, str]


def list_digest(utterances: Sequence[Utterance]) -> str:
    """The SHA-256 of the keys and paths."""
    return digest(map(_row, utterances))


def list_name(description: Mapping[str, Any]) -> str:
    """The name of the list of a described folder."""
    return f".list-{str(description.get('utterance_list'))[:16]}.jsonl.gz"


def list_bytes(utterances: Sequence[Utterance]) -> bytes:
    """The file of the list."""
    # Names that are not UTF-8 are escaped. Without the time, equal lists are equal files.
    return gzip.compress("".join(json.dumps(_row(u)) + "\n" for u in utterances).encode(), mtime=0)


def arranged(
    name: str, utterances: Sequence[Utterance], found: Mapping[str, Any], content: bytes | None
) -> Sequence[Utterance]:
    """The utterances in the order of a folder that a job continues: those that it lists, then the others.

    Args:
        name: the folder's name, for messages.
        utterances: the utterances of the job.
        found: the description of the folder.
        content: the content of its list; None if an earlier version of spintok wrote it, which kept none.

    Raises:
        CorpusError: the folder lists utterances that the job does not.
    """
    if found.get("utterance_list") == list_digest(utterances):
        return utterances
    rows = _rows(content)
    if rows is None or digest(rows) != found.get("utterance_list"):
        count = found.get("utterances")
        beginning = utterances[:count] if isinstance(count, int) and 0 <= count < len(utterances) else []
        if list_digest(beginning) == found.get("utterance_list"):
            return utterances
        raise CorpusError(
            f"{name}: holds another list of files, and its own is missing or of an earlier version; name another "
            "output folder, or add --overwrite"
        )
    known: dict[tuple[str | None, str], Utterance] = {
        (key, str(utterance.path)): utterance for utterance in utterances for key in _earlier_keys(utterance)
    }
    known |= {_row(utterance): utterance for utterance in utterances}
    for row in rows:
        # The key of what is in a tar or Parquet file gets longer when another file has the same.
        if row not in known and (inside := known.get((None, row[1]))) is not None:
            known[row] = inside
    # A subfolder that could not be read was listed last, and had no place for its files.
    while rows and rows[-1] not in known and rows[-1][0].endswith("/"):
        rows.pop()
    missing = [path for key, path in rows if (key, path) not in known]
    if missing:
        more = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise CorpusError(
            f"{name}: also holds {missing[0]}{more}, not listed now; list what it holds, name another output folder, "
            "or add --overwrite"
        )
    taken = {_row(known[row]) for row in rows}
    return [replace(known[row], key=row[0]) for row in rows] + [u for u in utterances if _row(u) not in taken]


def _row(utterance: Utterance) -> _Row:
    return utterance.key, str(utterance.path)


def _earlier_keys(utterance: Utterance) -> list[str | None]:
    """The keys that it has as long as no other is called so; None for any, where the path alone tells it apart."""
    short: list[str | None] = [utterance.key.removesuffix(utterance.path.suffix)]
    return [*short, None] if isinstance(utterance.path, TarMember | ParquetRow) else short


def _rows(content: bytes | None) -> list[_Row] | None:
    try:
        lines = [] if content is None else gzip.decompress(content).decode().splitlines()
        return None if content is None else [(str(key), str(path)) for key, path in map(json.loads, lines)]
    except (OSError, EOFError, ValueError, TypeError):
        return None
