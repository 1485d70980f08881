"""Sparse joint counts of two small integers: bigrams of codes, phones and codes, codes of two codebooks.

Memory grows with the number of distinct pairs, not with their occurrences, and counts of parts add up to those of the
whole. Entropies are plug-in estimates in bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spintok.stats.entropy import entropy

__all__ = ["JointCounts"]

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class JointCounts:
    """How often each pair (row, column) occurred.

    Attributes:
        rows, columns: rows are in [0, rows), columns in [0, columns).
        keys: ``row * columns + column`` of each pair that occurred, ascending, (M,) int64.
        counts: occurrences of each, (M,) int64; float64 when utterances are weighted.
    """

    rows: int
    columns: int
    keys: Integers
    counts: NDArray[Any]

    @classmethod
    def empty(cls, rows: int, columns: int) -> "JointCounts":
        """No pairs."""
        nothing = np.zeros(0, dtype=np.int64)
        return cls(rows, columns, nothing, nothing)

    @classmethod
    def of(cls, row: ArrayLike, column: ArrayLike, rows: int, columns: int) -> "JointCounts":
        """Count the pairs of two sequences of equal length. Raises ``ValueError`` for values out of range."""
        first, second = np.asarray(row, dtype=np.int64), np.asarray(column, dtype=np.int64)
        if first.shape != second.shape or first.ndim != 1:
            raise ValueError(f"pairs need two sequences of one length, got shapes {first.shape} and {second.shape}")
        for name, values, size in (("row", first, rows), ("column", second, columns)):
            if values.size and not 0 <= values.min() <= values.max() < size:
                raise ValueError(f"a {name} must lie in [0, {size}), got {values.min()} to {values.max()}")
        keys, counts = np.unique(first * columns + second, return_counts=True)
        return cls(rows, columns, keys, counts.astype(np.int64))

    def __add__(self, other: "JointCounts") -> "JointCounts":
        if (self.rows, self.columns) != (other.rows, other.columns):
            raise ValueError(
                f"counts of {self.rows} x {self.columns} and {other.rows} x {other.columns} pairs cannot be added"
            )
        return JointCounts.summed([self, other], self.rows, self.columns)

    @classmethod
    def summed(cls, parts: Sequence["JointCounts"], rows: int, columns: int) -> "JointCounts":
        """The sum of any number of counts of one shape."""
        nothing = np.zeros(0, dtype=np.int64)
        keys, index = np.unique(np.concatenate([nothing, *(part.keys for part in parts)]), return_inverse=True)
        counts = np.concatenate([nothing, *(part.counts for part in parts)])
        return cls(rows, columns, keys, _sums(index, counts, keys.size))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JointCounts) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    @property
    def total(self) -> int:
        """All occurrences."""
        return int(self.counts.sum())

    @cached_property
    def row(self) -> Integers:
        """The row of each distinct pair, (M,)."""
        return self.keys // self.columns

    @cached_property
    def column(self) -> Integers:
        """The column of each distinct pair, (M,)."""
        return self.keys % self.columns

    @cached_property
    def row_counts(self) -> NDArray[Any]:
        """Occurrences of each row, (rows,)."""
        return _sums(self.row, self.counts, self.rows)

    @cached_property
    def column_counts(self) -> NDArray[Any]:
        """Occurrences of each column, (columns,)."""
        return _sums(self.column, self.counts, self.columns)

    def conditional_entropy(self) -> float:
        """H(column | row) in bits."""
        return max(0.0, entropy(self.counts) - entropy(self.row_counts))

    def mutual_information(self) -> float:
        """I(row; column) in bits: H(row) + H(column) - H(row, column), Cover and Thomas, equation 2.45."""
        return max(0.0, entropy(self.row_counts) + entropy(self.column_counts) - entropy(self.counts))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "rows": self.rows,
            "columns": self.columns,
            "keys": self.keys.tolist(),
            "counts": self.counts.tolist(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "JointCounts":
        """The inverse of ``to_dict``."""
        keys, counts = (np.asarray(values[name], dtype=np.int64) for name in ("keys", "counts"))
        return cls(int(values["rows"]), int(values["columns"]), keys, counts)


def _sums(index: Integers, counts: NDArray[Any], size: int) -> NDArray[Any]:
    # Sums in float64 are exact up to 2 ** 53 pairs.
    return np.bincount(index, weights=counts, minlength=size).astype(counts.dtype)
