"""Entropies of counts, in bits."""

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["entropy", "jensen_shannon"]


def entropy(counts: ArrayLike) -> float:
    """Entropy in bits of the normalised counts, of any shape; 0 if there are none."""
    present = np.asarray(counts, dtype=np.float64).ravel()
    present = present[present > 0]
    if present.size == 0:
        return 0.0
    share = present / present.sum()
    return float(-(share * np.log2(share)).sum()) + 0.0


def jensen_shannon(first: ArrayLike, second: ArrayLike) -> float:
    """Jensen-Shannon divergence in bits between two arrays of counts of one shape, each normalised.

    H((p + q) / 2) - (H(p) + H(q)) / 2 (Lin 1991, "Divergence measures based on the Shannon entropy"): 0 for equal
    distributions, 1 for disjoint ones.

    Raises:
        ValueError: the shapes differ, or one array has no counts.
    """
    p, q = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if p.shape != q.shape:
        raise ValueError(f"distributions over {p.shape} and {q.shape} outcomes cannot be compared")
    if p.sum() <= 0 or q.sum() <= 0:
        raise ValueError("a divergence needs tokens on both sides: one side has none")
    p, q = p / p.sum(), q / q.sum()
    return min(1.0, max(0.0, entropy(p + q) - (entropy(p) + entropy(q)) / 2))
