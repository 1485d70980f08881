"""K-means on features in memory or in a memory-mapped file, by full passes; memory use does not grow with the features.

It starts from k-means++ (Arthur and Vassilvitskii 2007) on a random sample. Each pass assigns every feature to its
nearest codeword and moves each codeword to the mean of its features, until the mean squared distance falls by less
than ``tolerance`` of itself. Two engines do the passes: "torch" assigns exactly (``spintok_kernels.assign``), sums in
float64 and gives unused codewords the features farthest from their codeword; "faiss" is ``faiss.Kmeans``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from spintok_kernels import assign, prepare
from torch import Tensor

from spintok._files import require
from spintok.train.clustering_state import ClusteringState, KMeansResult, StateFile

__all__ = ["Features", "KMeansConfig", "KMeansResult", "fit"]

Features = NDArray[np.float32]
"""(N, D), an array or a memory map."""

_Pass = Callable[[Tensor], tuple[Tensor, float]]
"""Moves codewords (K, D); also returns the mean squared distance to the codewords before the move."""

# Features per block of a pass, and of a sum in float64, whose copy then stays in the processor's cache.
_BLOCK = 65_536
_ROWS = 1_024


@dataclass(frozen=True)
class KMeansConfig:
    """Settings of the clustering.

    Attributes:
        size: K, the number of codewords.
        iterations: maximum number of passes over the features, for each start.
        tolerance: stop when a pass lowers the mean squared distance by less than this fraction.
        restarts: number of random starts; the one with the lowest mean squared distance is kept.
        sample: number of features drawn for k-means++.
        seed: seeds every random draw.
        engine: "torch", or "faiss" (``pip install 'spintok[faiss]'``; on a GPU, faiss-gpu).
    """

    size: int
    iterations: int = 100
    tolerance: float = 1e-4
    restarts: int = 1
    sample: int = 50_000
    seed: int = 0
    engine: Literal["torch", "faiss"] = "torch"

    def __post_init__(self) -> None:
        if min(self.size, self.iterations, self.restarts) < 1 or self.tolerance < 0:
            raise ValueError("size, iterations and restarts must be at least 1, and tolerance at least 0")
        if self.sample < self.size:
            raise ValueError(f"sample must be at least size, got {self.sample} for {self.size} codewords")


def fit(
    features: Features,
    config: KMeansConfig,
    progress: Callable[[int, int, float], None] | None = None,
    device: torch.device | None = None,
    file: StateFile | None = None,
) -> KMeansResult:
    """Cluster ``features``.

    Args:
        features: (N, D) float32.
        config: settings.
        progress: called after each pass with the number of the start, of the pass, and the mean squared distance.
        device: where features are assigned to codewords; the CPU by default.
        file: holds the state of this clustering, and is gone on from; the result is the same as without it.

    Raises:
        ValueError: there are fewer features than codewords, a feature is not finite, or faiss is needed but not
            installed.
    """
    device = device or torch.device("cpu")
    rng = np.random.default_rng(config.seed)
    state = None if file is None else file.read()
    best = None if state is None else state.best
    for start in range(0 if state is None else state.start, config.restarts):
        if state is None:
            codewords = _plus_plus(_sample(features, config, rng), config.size, rng)
            first, previous = 1, float("inf")
        else:
            rng.bit_generator.state = state.generator
            codewords, previous, first = state.passed.codewords, state.passed.distance, state.passed.iterations + 1
            state = None
        one_pass = _faiss_pass(features, config, device) if config.engine == "faiss" else _torch_pass(features, device)
        for iteration in range(first, config.iterations + 1):
            codewords, distance = one_pass(codewords)
            passed = KMeansResult(codewords, distance, iteration)
            if progress is not None:
                progress(start, iteration, distance)
            if previous - distance <= config.tolerance * distance:
                break
            previous = distance
            if file is not None and iteration < config.iterations:
                file.keep(ClusteringState(start, passed, best, rng.bit_generator.state))
        if best is None or passed.distance < best.distance:
            best = passed
    assert best is not None
    return best


def _torch_pass(features: Features, device: torch.device) -> _Pass:
    squares = 0.0

    def one_pass(codewords: Tensor) -> tuple[Tensor, float]:
        nonlocal squares
        size, width = codewords.shape
        prepared = prepare(codewords.to(device), "l2")
        sums = torch.zeros(size, width, dtype=torch.float64)
        counts = torch.zeros(size, dtype=torch.int64)
        first = not squares
        for block in _blocks(features):
            # Sums stay on the CPU: on a GPU their order, and so the last digits, would change from run to run.
            codes = assign(block.to(device), prepared).cpu().long()
            counts += torch.bincount(codes, minlength=size)
            for rows, where in zip(block.split(_ROWS), codes.split(_ROWS), strict=True):
                doubles = rows.double()
                sums.index_add_(0, where, doubles)
                if first:
                    squares += float(doubles.square().sum())
        # The sum of |x - c|^2 = |x|^2 - 2 x c + |c|^2 over the features x of each codeword c.
        doubles = codewords.double()
        total = squares - 2 * float((sums * doubles).sum()) + float(counts.double() @ doubles.square().sum(1))
        moved = (sums / counts.clamp(min=1)[:, None]).float()
        if len(unused := torch.nonzero(counts == 0).flatten()):
            far = _farthest(features, codewords, len(unused), device)
            moved[unused[: len(far)]] = far
        return moved, max(total, 0.0) / len(features)

    return one_pass


def _farthest(features: Features, codewords: Tensor, count: int, device: torch.device) -> Tensor:
    """The ``count`` features (count, D) that are farthest from their codeword, the farthest first."""
    prepared = prepare(codewords.to(device), "l2")
    distances, far = torch.empty(0), torch.empty(0, codewords.shape[1])
    for block in _blocks(features):
        codes = assign(block.to(device), prepared).cpu().long()
        distances = torch.cat([distances, (block - codewords[codes]).square().sum(1)])
        far = torch.cat([far, block])
        distances, kept = distances.topk(min(count, len(distances)))
        far = far[kept]
    return far


def _faiss_pass(features: Features, config: KMeansConfig, device: torch.device) -> _Pass:
    faiss = require("faiss", extra="faiss", purpose="kmeans.engine = 'faiss'")
    on_gpu = device.type == "cuda"
    if on_gpu and not getattr(faiss, "get_num_gpus", int)():
        raise ValueError("kmeans.engine = 'faiss' needs faiss-gpu on a GPU, and this faiss sees none: use --device cpu")

    def one_pass(codewords: Tensor) -> tuple[Tensor, float]:
        # One iteration at a time, so that both engines have the same stopping rule; no subsampling.
        kmeans = faiss.Kmeans(
            features.shape[1],
            config.size,
            niter=1,
            seed=config.seed,
            min_points_per_centroid=1,
            max_points_per_centroid=len(features),
            gpu=on_gpu,
        )
        kmeans.train(features, init_centroids=codewords.numpy())
        assert kmeans.obj is not None
        assert kmeans.centroids is not None
        # With as many features as codewords, faiss copies them and has no statistics.
        total = float(kmeans.obj[-1]) if len(kmeans.obj) else 0.0
        return torch.from_numpy(kmeans.centroids.copy()), total / len(features)

    return one_pass


def _blocks(features: Features) -> Iterator[Tensor]:
    for first in range(0, len(features), _BLOCK):
        yield torch.from_numpy(np.array(features[first : first + _BLOCK]))


def _sample(features: Features, config: KMeansConfig, rng: np.random.Generator) -> Tensor:
    """``config.sample`` features drawn evenly from all, or all of them if there are no more.

    Each feature gets a random number; the features with the smallest numbers are kept.
    """
    if len(features) < config.size:
        raise ValueError(
            f"{len(features)} features are fewer than {config.size} codewords: give more audio or a smaller size"
        )
    kept, numbers = torch.empty(0), np.empty(0)
    for block in _blocks(features):
        if not torch.isfinite(block).all():
            raise ValueError("a feature is NaN or infinite")
        kept = torch.cat([kept.reshape(-1, block.shape[1]), block])
        numbers = np.concatenate([numbers, rng.random(len(block))])
        if len(kept) > config.sample:
            order = np.argpartition(numbers, config.sample)[: config.sample]
            kept, numbers = kept[torch.from_numpy(order)], numbers[order]
    return kept


def _plus_plus(features: Tensor, size: int, rng: np.random.Generator) -> Tensor:
    """k-means++: each next codeword is a feature drawn in proportion to its squared distance to the chosen ones."""
    chosen = [int(rng.integers(len(features)))]
    nearest = (features - features[chosen[0]]).square().sum(1).double()
    while len(chosen) < size:
        total = nearest.cumsum(0)
        # If the total is 0, all features equal a codeword already, and any feature will do.
        target = rng.random() * float(total[-1])
        chosen.append(min(int(torch.searchsorted(total, target, right=True)), len(features) - 1))
        nearest = torch.minimum(nearest, (features - features[chosen[-1]]).square().sum(1).double())
    return features[chosen].clone()
