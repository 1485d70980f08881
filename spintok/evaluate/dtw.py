"""Dynamic time warping of many pairs of short sequences at once.

The distance of two sequences is the smallest sum of frame distances along a path from the first pair of frames to the
last, divided by the number of pairs on that path. If several steps lead to the same sum, the path takes the diagonal
one, then the one in the second sequence, then the one in the first. torchdtw, which fastabx uses, breaks ties the same
way, so the lengths of the paths are equal too.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Distance", "distances", "unit_rows", "warp"]

Distance = Literal["angular", "euclidean", "identical"]

_BUDGET = 1 << 24
"""The largest number of values in the padded frames of a batch of pairs."""
_PAIRS = 4096


def unit_rows(features: NDArray[Any]) -> NDArray[np.float32]:
    """Rows scaled to unit length; rows of zeros are unchanged."""
    array = np.asarray(features, dtype=np.float32)
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    return (array / np.where(norms > 0, norms, 1)).astype(np.float32)


def distances(
    sequences: Sequence[NDArray[Any]], first: NDArray[np.int64], second: NDArray[np.int64], distance: Distance
) -> NDArray[np.float32]:
    """The distance of ``sequences[first[i]]`` and ``sequences[second[i]]``, (P,) float32.

    Args:
        sequences: each (T, D) floats, with rows of unit length for "angular"; or (T,) integers for "identical".
            T must be at least 1.
        distance: distance of two frames: "angular" is arccos(x . y) / pi, "euclidean", and "identical" is 0 or 1.
    """
    if len(first) == 0:
        return np.zeros(0, dtype=np.float32)
    sizes = np.array([len(sequence) for sequence in sequences])
    starts = np.cumsum(sizes) - sizes
    flat = np.concatenate(sequences)

    def rows(index: NDArray[np.int64]) -> NDArray[Any]:
        """The sequences stacked, (P, T) or (P, T, D), each padded with its last frame."""
        steps = np.minimum(np.arange(sizes[index].max()), sizes[index][:, None] - 1)
        found: NDArray[Any] = flat[starts[index][:, None] + steps]
        return found

    # Batches of pairs of similar lengths need little padding.
    order = np.lexsort((sizes[second], sizes[first]))
    width = flat[0].size
    found = np.empty(len(first), dtype=np.float32)
    start = 0
    while start < len(order):
        longest = int(max(sizes[first[order[start]]], sizes[second[order[start : start + _PAIRS]]].max()))
        batch = order[start : start + max(1, min(_PAIRS, _BUDGET // (longest * width)))]
        cost = _frame_distances(rows(first[batch]), rows(second[batch]), distance)
        found[batch] = warp(cost, sizes[first[batch]], sizes[second[batch]])
        start += len(batch)
    return found


def warp(cost: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
    """DTW of frame distances ``cost`` (P, T, U), of which each pair has ``rows`` x ``columns`` (P,) valid ones."""
    pairs, height, width = cost.shape
    # The pairs come last, so that each step works on contiguous memory.
    total = np.ascontiguousarray(cost.transpose(1, 2, 0))
    length = np.ones((height, width, pairs), dtype=np.float32)
    for i in range(height):
        for j in range(width):
            if i == 0 and j == 0:
                continue
            if i == 0 or j == 0:
                before = (i, j - 1) if i == 0 else (i - 1, j)
                total[i, j] += total[before]
                length[i, j] += length[before]
                continue
            diagonal, left, up = total[i - 1, j - 1], total[i, j - 1], total[i - 1, j]
            straight = np.minimum(left, up)
            side = np.where(left <= up, length[i, j - 1], length[i - 1, j])
            length[i, j] += np.where(diagonal <= straight, length[i - 1, j - 1], side)
            total[i, j] += np.minimum(diagonal, straight)
    last = (rows - 1, columns - 1, np.arange(pairs))
    found: NDArray[np.float32] = total[last] / length[last]
    return found


def _frame_distances(x: NDArray[Any], y: NDArray[Any], distance: Distance) -> NDArray[np.float32]:
    """(P, T, U) float32."""
    if (x.ndim == 2) != (distance == "identical"):
        raise ValueError(f"the distance {distance!r} does not fit sequences of {'codes' if x.ndim == 2 else 'vectors'}")
    match distance:
        case "identical":
            cost: NDArray[Any] = x[:, :, None] != y[:, None, :]
        case "angular":
            cosines = np.clip(x @ y.transpose(0, 2, 1), -1, 1)
            cost = np.arccos(cosines) / np.pi
        case "euclidean":
            squares = (x**2).sum(2)[:, :, None] + (y**2).sum(2)[:, None, :] - 2 * x @ y.transpose(0, 2, 1)
            cost = np.sqrt(np.maximum(squares, 0))
    return cost.astype(np.float32)
