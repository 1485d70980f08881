"""The JSON of ``stats.json`` and ``spintok stats --json``: metrics for people and counts for adding."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spintok.stats.counts import TokenCounts
from spintok.stats.metrics import metrics

__all__ = ["from_json", "read_counts", "to_json"]


def to_json(counts: TokenCounts, silence: Iterable[int] | None = None, more: Mapping[str, Any] | None = None) -> str:
    """``figures`` (the metrics), the entries of ``more``, and ``counts``, as one JSON object.

    A metric per line; the counts are one line.
    """
    figures = json.dumps({"figures": metrics(counts, silence), **(more or {})}, indent=2)
    return f'{figures.removesuffix("}").rstrip()},\n  "counts": {json.dumps(counts.to_dict())}\n}}\n'


def read_counts(path: Path) -> TokenCounts:
    """The counts in a file that ``to_json`` wrote. Raises ``ValueError``."""
    return from_json(path.read_text(encoding="utf-8", errors="replace"), str(path))


def from_json(text: str, name: str) -> TokenCounts:
    """The counts that ``to_json`` wrote to a file called ``name``. Raises ``ValueError``."""
    try:
        return TokenCounts.from_dict(json.loads(text)["counts"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{name}: not the JSON that spintok stats writes ({error!r})") from None
