"""Cut documents into windows of one length, with loss masks and positions; shuffle; split into train and validation."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spintok.export.errors import ExportError
from spintok.export.sequences.base import TokenSequence

__all__ = ["Packer", "Split", "Window", "pack", "shuffled", "split_of"]

Split = Literal["train", "validation"]


@dataclass(frozen=True, eq=False)
class Window:
    """One training example.

    Attributes:
        ids: (L,) int32.
        loss_mask: (L,) bool, False where the document's mask is, at the first id of a document or window, and on
            padding.
        positions: (L,) int32, counted from 0 in each document, and again in a part that continues in the next window.
        documents: (L,) int32, the number of the document in this window, from 0; -1 on padding. Attention between
            ids of equal numbers keeps documents apart.
    """

    ids: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]
    positions: NDArray[np.int32]
    documents: NDArray[np.int32]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels for ``transformers``, which shifts them: (L,) int64, the ids, or -100 where there is no loss."""
        return np.where(self.loss_mask, self.ids, -100).astype(np.int64)


def pack(sequences: Iterable[TokenSequence], length: int, pad: int, *, cut: bool = True) -> Iterator[Window]:
    """Windows of ``length`` ids that hold all documents in their order.

    Args:
        sequences: the documents.
        length: L.
        pad: the id of padding.
        cut: let documents continue in the next window, so that only the last window has padding. Otherwise a
            document that does not fit starts a new window, and the old one is padded.

    Raises:
        ExportError: a document is longer than a window, without ``cut``.
    """
    packer = Packer(length, pad, cut=cut)
    for sequence in sequences:
        yield from packer.add(sequence)
    yield from packer.rest()


class Packer:
    """``pack`` for documents that come one at a time; each call returns the windows that became full."""

    def __init__(self, length: int, pad: int, *, cut: bool = True) -> None:
        if length < 2:
            raise ExportError(f"a window needs at least 2 ids, got {length}")
        self.length, self.pad, self.cut = length, pad, cut
        self._parts: list[TokenSequence] = []
        self._room = length

    def add(self, sequence: TokenSequence) -> Iterator[Window]:
        """Add a document."""
        if not self.cut and len(sequence) > self.length:
            raise ExportError(
                f"a document of {len(sequence)} ids does not fit in a window of {self.length}; allow cutting"
            )
        if not self.cut and len(sequence) > self._room:
            yield from self.rest()
        while len(sequence):
            head, sequence = _cut(sequence, self._room)
            self._parts.append(head)
            self._room -= len(head)
            if not self._room:
                yield from self.rest()

    def rest(self) -> Iterator[Window]:
        """The last window, padded, if it is not empty."""
        if self._parts:
            yield _window(self._parts, self.length, self.pad)
        self._parts, self._room = [], self.length


def shuffled(count: int, seed: int) -> NDArray[np.int64]:
    """A permutation of the numbers below ``count`` that depends on the seed; 8 bytes of memory each."""
    return np.random.Generator(np.random.PCG64(seed)).permutation(count)


def split_of(name: str, validation: float, seed: int = 0) -> Split:
    """The part for a speaker or file. It depends on a hash of the name, not on the rest of the corpus."""
    if not 0 <= validation <= 1:
        raise ExportError(f"the validation share must be in [0, 1], got {validation}")
    digest = hashlib.blake2b(f"{seed}\t{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return "validation" if int.from_bytes(digest, "big") < validation * 2**64 else "train"


def _cut(sequence: TokenSequence, room: int) -> tuple[TokenSequence, TokenSequence]:
    """The first ``room`` ids and the rest. The first id of the rest has no loss: its window starts there."""
    if len(sequence) <= room:
        return sequence, TokenSequence(sequence.ids[:0], sequence.loss_mask[:0])
    mask = sequence.loss_mask.copy()
    mask[room] = False
    return (
        TokenSequence(sequence.ids[:room], sequence.loss_mask[:room]),
        TokenSequence(sequence.ids[room:], mask[room:]),
    )


def _window(parts: list[TokenSequence], length: int, pad: int) -> Window:
    sizes = [len(part) for part in parts]
    rest = length - sum(sizes)
    return Window(
        np.concatenate([*(part.ids for part in parts), np.full(rest, pad, dtype=np.int32)]),
        np.concatenate([*(part.loss_mask for part in parts), np.zeros(rest, dtype=bool)]),
        np.concatenate([np.arange(size, dtype=np.int32) for size in [*sizes, rest]]),
        np.repeat(np.array([*range(len(parts)), -1], dtype=np.int32), [*sizes, rest]),
    )
