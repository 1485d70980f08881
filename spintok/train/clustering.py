"""K-means by full passes over features that lie in chunks, on disk or anywhere: memory does not grow with them.

Each pass assigns every feature exactly (``spintok_kernels.assign``) and moves each codeword to the mean of its
features, summed in float64. It starts from k-means++ (Arthur and Vassilvitskii 2007) on a random sample and stops
when the mean squared distance falls by less than ``tolerance`` of itself.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from spintok_kernels import assign
from torch import Tensor

__all__ = ["KMeansConfig", "KMeansResult", "fit"]

Chunks = Callable[[], Iterable[Tensor]]
"""Gives all features from the start, in chunks (n, D) float32, the same at each call."""


@dataclass(frozen=True)
class KMeansConfig:
    """How to cluster.

    Attributes:
        size: K, the number of codewords.
        iterations: passes over the features at most, for each start.
        tolerance: stop when a pass lowers the mean squared distance by less than this share.
        restarts: random starts; the best one, by mean squared distance, is kept.
        sample: features drawn for k-means++.
        seed: of every random draw.
    """

    size: int
    iterations: int = 100
    tolerance: float = 1e-4
    restarts: int = 1
    sample: int = 50_000
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.size, self.iterations, self.restarts) < 1 or self.tolerance < 0:
            raise ValueError("size, iterations and restarts must be at least 1, and tolerance at least 0")
        if self.sample < self.size:
            raise ValueError(f"sample must be at least size, got {self.sample} for {self.size} codewords")


@dataclass(frozen=True)
class KMeansResult:
    """Codewords (K, D) float32, the mean squared distance to them, and the passes it took."""

    codewords: Tensor
    distance: float
    iterations: int


def fit(
    chunks: Chunks, config: KMeansConfig, progress: Callable[[int, int, float], None] | None = None
) -> KMeansResult:
    """Cluster the features; ``progress`` hears (start, pass, mean squared distance) after each pass.

    Raises ``ValueError`` when there are fewer features than codewords, or a feature is not finite.
    """
    rng = np.random.default_rng(config.seed)
    best: KMeansResult | None = None
    for start in range(config.restarts):
        codewords = _plus_plus(_sample(chunks, config, rng), config.size, rng)
        previous = float("inf")
        for iteration in range(1, config.iterations + 1):
            codewords, distance = _pass(chunks, codewords)
            if progress is not None:
                progress(start, iteration, distance)
            if previous - distance <= config.tolerance * distance:
                break
            previous = distance
        if best is None or distance < best.distance:
            best = KMeansResult(codewords, distance, iteration)
    assert best is not None
    return best


def _pass(chunks: Chunks, codewords: Tensor) -> tuple[Tensor, float]:
    """One pass: the moved codewords, and the mean squared distance to the codewords as they were."""
    size, width = codewords.shape
    sums = torch.zeros(size, width, dtype=torch.float64)
    counts = torch.zeros(size, dtype=torch.int64)
    total, seen = 0.0, 0
    # Features far from their codeword, to put codewords that nothing chose to use.
    far: list[tuple[float, Tensor]] = []
    for chunk in chunks():
        ids = assign(chunk, codewords, metric="l2").long()
        distances = (chunk - codewords[ids]).square().sum(1)
        total += float(distances.double().sum())
        seen += len(chunk)
        sums.index_add_(0, ids, chunk.double())
        counts += torch.bincount(ids, minlength=size)
        values, rows = distances.topk(min(8, len(chunk)))
        far += zip(values.tolist(), chunk[rows], strict=True)
        far = sorted(far, key=lambda pair: -pair[0])[:size]
    moved = (sums / counts.clamp(min=1)[:, None]).float()
    for code, (_, feature) in zip(torch.nonzero(counts == 0).flatten().tolist(), far, strict=False):
        moved[code] = feature
    return moved, total / seen


def _sample(chunks: Chunks, config: KMeansConfig, rng: np.random.Generator) -> Tensor:
    """``config.sample`` features drawn evenly from all, or all of them when there are no more.

    Each feature gets a random number; those with the smallest ones stay.
    """
    kept, numbers = torch.empty(0), np.empty(0)
    for chunk in chunks():
        if not torch.isfinite(chunk).all():
            raise ValueError("a feature is NaN or infinite")
        kept = torch.cat([kept.reshape(-1, chunk.shape[1]), chunk])
        numbers = np.concatenate([numbers, rng.random(len(chunk))])
        if len(kept) > config.sample:
            order = np.argpartition(numbers, config.sample)[: config.sample]
            kept, numbers = kept[torch.from_numpy(order)], numbers[order]
    if len(kept) < config.size:
        raise ValueError(
            f"{len(kept)} features are fewer than {config.size} codewords: give more audio or a smaller size"
        )
    return kept


def _plus_plus(features: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """k-means++: each next codeword is a feature drawn with odds of its squared distance to those before."""
    chosen = [int(rng.integers(len(features)))]
    nearest = (features - features[chosen[0]]).square().sum(1).double()
    while len(chosen) < size:
        total = nearest.cumsum(0)
        # All features lie on codewords already: any one will do.
        place = rng.random() * float(total[-1])
        chosen.append(min(int(torch.searchsorted(total, place, right=True)), len(features) - 1))
        nearest = torch.minimum(nearest, (features - features[chosen[-1]]).square().sum(1).double())
    return features[chosen].clone()
