"""Draw how many frames the encoder may see at once, so that one set of weights serves every latency."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spintok.train.batching.examples import Batch, Examples
from spintok.train.batching.plan import BatchSpec

__all__ = ["WithChunks"]


@dataclass(frozen=True)
class WithChunks:
    """Batches of ``examples`` with ``Batch.chunk``, one of ``chunks`` at random; 0 stands for all frames.

    The draw depends only on the seed and the position in the data. Source: Zhang et al. 2020, "U2".
    """

    examples: Examples
    chunks: Sequence[int]
    seed: int

    def __call__(self, spec: BatchSpec) -> Batch:
        rng = np.random.default_rng([self.seed, *spec.position])
        return replace(self.examples(spec), chunk=self.chunks[int(rng.integers(len(self.chunks)))] or None)
