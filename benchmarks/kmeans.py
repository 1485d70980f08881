"""K-means: spintok's torch engine and faiss on the same features from the same start.

    spintok bench kmeans [FEATURES] [--sizes 100 500] [--iterations 20] [--device cpu] [--rounds 3]

FEATURES is a .npy file of (N, D) float32. Without it, features are drawn around random centres (--count, --width).
Both engines cluster the features in turn, and their mean squared distances must agree. The time of a pass is the
minimum over the rounds.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from spintok.train.clustering import Features, KMeansConfig, KMeansResult, fit

ENGINES: tuple[Literal["torch", "faiss"], ...] = ("torch", "faiss")
TOLERANCE = 1e-3
"""Relative difference of the mean squared distances that rounding may cause after many passes."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, nargs="?", help="a .npy file of (N, D) float32")
    parser.add_argument("--count", type=int, default=200_000, help="N, of drawn features")
    parser.add_argument("--width", type=int, default=256, help="D, of drawn features")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 500], help="numbers of codewords")
    parser.add_argument("--iterations", type=int, default=20, help="passes of one clustering")
    parser.add_argument("--rounds", type=int, default=3, help="clusterings of each engine that are timed")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    features = drawn(options.count, options.width) if options.features is None else np.load(options.features, "r")
    print(f"{len(features):,} features of width {features.shape[1]}, {device}, {torch.get_num_threads()} threads\n")
    print(f"{'codewords':>9} {'engine':8}{'ms a pass':>10}{'features a second':>19}{'mean distance²':>16}")
    for size in options.sizes:
        # No tolerance, so that both engines do all passes.
        config = KMeansConfig(size, iterations=options.iterations, tolerance=0.0)
        best = {engine: float("inf") for engine in ENGINES}
        results: dict[str, KMeansResult] = {}
        for _ in range(options.rounds):
            for engine in ENGINES:
                seconds, results[engine] = timed(features, config, engine, device)
                best[engine] = min(best[engine], seconds)
        ours, theirs = (results[engine].distance for engine in ENGINES)
        if not abs(ours - theirs) <= TOLERANCE * theirs:
            raise SystemExit(f"no figures: the mean squared distances are {ours:.6g} and {theirs:.6g}")
        for engine in ENGINES:
            rate = len(features) / best[engine]
            print(f"{size:9} {engine:8}{1000 * best[engine]:10.1f}{rate:19,.0f}{results[engine].distance:16.6g}")


def drawn(count: int, width: int) -> Features:
    """(count, width) float32 around 1,000 random centres."""
    rng = np.random.default_rng(0)
    centres = 3 * rng.standard_normal((1_000, width), dtype=np.float32)
    return centres[rng.integers(len(centres), size=count)] + rng.standard_normal((count, width), dtype=np.float32)


def timed(
    features: Features, config: KMeansConfig, engine: Literal["torch", "faiss"], device: torch.device
) -> tuple[float, KMeansResult]:
    """Mean seconds of a pass, without the choice of the start, and the result."""
    times: list[float] = []
    settings = KMeansConfig(config.size, config.iterations, config.tolerance, engine=engine)
    result = fit(features, settings, lambda start, number, distance: times.append(time.perf_counter()), device)
    # The first pass warms up.
    return (times[-1] - times[0]) / max(1, len(times) - 1), result


if __name__ == "__main__":
    main()
