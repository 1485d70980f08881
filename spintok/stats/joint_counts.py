"""Counts of pairs of small integers, sparse: bigrams of codes, phones and codes, codes of two codebooks.

Memory grows with the kinds of pairs that occur, not with how often, and the counts of parts add up to those of the
whole. Entropies are plug-in estimates in bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["PairCounts", "entropy"]

Integers = NDArray[np.int64]


def entropy(counts: ArrayLike) -> float:
    """The entropy in bits of the distribution that counts of any shape are in proportion to; 0 without counts."""
    present = np.asarray(counts, dtype=np.float64).ravel()
    present = present[present > 0]
    if present.size == 0:
        return 0.0
    share = present / present.sum()
    return float(-(share * np.log2(share)).sum()) + 0.0


@dataclass(frozen=True, eq=False)
class PairCounts:
    """How often each pair (row, column) occurred.

    Attributes:
        rows, columns: both members of a pair lie in [0, rows) and [0, columns).
        keys: ``row * columns + column`` of each pair that occurred, rising, (M,) int64.
        counts: how often, (M,) int64; float64 where utterances are weighted.
    """

    rows: int
    columns: int
    keys: Integers
    counts: NDArray[Any]

    @classmethod
    def empty(cls, rows: int, columns: int) -> "PairCounts":
        """No pairs at all."""
        nothing = np.zeros(0, dtype=np.int64)
        return cls(rows, columns, nothing, nothing)

    @classmethod
    def of(cls, row: ArrayLike, column: ArrayLike, rows: int, columns: int) -> "PairCounts":
        """Count the pairs of two sequences of one length. Raises ``ValueError`` for members out of range."""
        first, second = np.asarray(row, dtype=np.int64), np.asarray(column, dtype=np.int64)
        if first.shape != second.shape or first.ndim != 1:
            raise ValueError(f"pairs need two sequences of one length, got shapes {first.shape} and {second.shape}")
        for name, members, size in (("row", first, rows), ("column", second, columns)):
            if members.size and not 0 <= members.min() <= members.max() < size:
                raise ValueError(f"a {name} must lie in [0, {size}), got {members.min()} to {members.max()}")
        keys, counts = np.unique(first * columns + second, return_counts=True)
        return cls(rows, columns, keys, counts.astype(np.int64))

    def __add__(self, other: "PairCounts") -> "PairCounts":
        if (self.rows, self.columns) != (other.rows, other.columns):
            raise ValueError(
                f"counts of {self.rows} x {self.columns} and {other.rows} x {other.columns} pairs cannot be added"
            )
        return PairCounts.summed([self, other], self.rows, self.columns)

    @classmethod
    def summed(cls, parts: Sequence["PairCounts"], rows: int, columns: int) -> "PairCounts":
        """The sum of many of one shape, in one go."""
        nothing = np.zeros(0, dtype=np.int64)
        keys, place = np.unique(np.concatenate([nothing, *(part.keys for part in parts)]), return_inverse=True)
        counts = np.concatenate([nothing, *(part.counts for part in parts)])
        return cls(rows, columns, keys, _sums(place, counts, keys.size))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PairCounts) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    @property
    def total(self) -> int:
        """How many pairs were counted."""
        return int(self.counts.sum())

    @cached_property
    def row(self) -> Integers:
        """The row of each entry, (M,)."""
        return self.keys // self.columns

    @cached_property
    def column(self) -> Integers:
        """The column of each entry, (M,)."""
        return self.keys % self.columns

    @cached_property
    def row_counts(self) -> NDArray[Any]:
        """Pairs of each row, (rows,)."""
        return _sums(self.row, self.counts, self.rows)

    @cached_property
    def column_counts(self) -> NDArray[Any]:
        """Pairs of each column, (columns,)."""
        return _sums(self.column, self.counts, self.columns)

    def conditional_entropy(self) -> float:
        """H(column | row) in bits."""
        return max(0.0, entropy(self.counts) - entropy(self.row_counts))

    def mutual_information(self) -> float:
        """I(row; column) in bits: H(row) + H(column) - H(row, column), Cover and Thomas, equation 2.45."""
        return max(0.0, entropy(self.row_counts) + entropy(self.column_counts) - entropy(self.counts))

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON holds."""
        return {
            "rows": self.rows,
            "columns": self.columns,
            "keys": self.keys.tolist(),
            "counts": self.counts.tolist(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PairCounts":
        """What ``to_dict`` gave."""
        keys, counts = (np.asarray(values[name], dtype=np.int64) for name in ("keys", "counts"))
        return cls(int(values["rows"]), int(values["columns"]), keys, counts)


def _sums(index: Integers, counts: NDArray[Any], size: int) -> NDArray[Any]:
    # Sums in float64 are exact up to 2 ** 53 pairs.
    return np.bincount(index, weights=counts, minlength=size).astype(counts.dtype)
