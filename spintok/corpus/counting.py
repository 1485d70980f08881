"""Count the tokens of a folder in one pass, for ``spintok stats`` and the report."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from spintok.corpus.token_formats import Record
from spintok.corpus.tokens import CorpusError, grid_of, read_corpus
from spintok.stats import JointCounts, TokenCounts
from spintok.tokens import Tokens

__all__ = ["CorpusCounts", "count_corpus"]

_BATCH = 1000


@dataclass(frozen=True)
class CorpusCounts:
    """The counts of a token folder.

    Attributes:
        description: its ``tokenizer.json``.
        codebook: the name of the codebook that was counted.
        counts: the counts of its tokens.
        joint: codes of the folder's first two codebooks at the same frames; None when it has one codebook.
    """

    description: dict[str, Any]
    codebook: str
    counts: TokenCounts
    joint: JointCounts | None


def count_corpus(
    folder: Path,
    codebook: str | None = None,
    visit: Callable[[Mapping[str, Tokens]], None] = lambda tokens: None,
) -> CorpusCounts:
    """Count a token folder in one pass; memory does not grow with the corpus.

    Args:
        folder: what ``spintok encode`` wrote.
        codebook: the codebook to count; the folder's first one by default.
        visit: called with the tokens of each batch of utterances by key, for counts of other kinds.

    Raises:
        CorpusError: not a complete token folder, or it has no such codebook.
        ShardError: a shard is damaged.
    """
    description, records = read_corpus(folder)
    sizes = description["codebooks"]
    name = next(iter(sizes)) if codebook is None else codebook
    if name not in sizes:
        raise CorpusError(f"{folder}: has no codebook {name!r}, only {', '.join(sizes)}")
    first, second = [*sizes, None][:2]
    rate = grid_of(description).rate
    counts = TokenCounts.empty(sizes[name], rate)
    joint = None if second is None else JointCounts.empty(sizes[first], sizes[second])
    for batch in _batches(records):
        counts += TokenCounts.collect([(record.tokens[name], record.speaker) for record in batch], sizes[name], rate)
        if joint is not None:
            rows, columns = (np.concatenate([r.tokens[book].codes for r in batch]) for book in (first, second))
            joint += JointCounts.of(rows, columns, joint.rows, joint.columns)
        visit({record.key: record.tokens[name] for record in batch})
    return CorpusCounts(description, name, counts, joint)


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    while batch := list(islice(records, _BATCH)):
        yield batch
