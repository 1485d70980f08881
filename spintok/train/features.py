"""Features of a corpus in a file on disk, so that many passes over them need only one pass of the encoder."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spintok.augment.random import utterance_rng
from spintok.data.manifest import Utterance
from spintok.featurizer import Featurizer

__all__ = ["FeatureFile"]


class FeatureFile:
    """Features (N, D) float32 in a raw file, read back in chunks."""

    def __init__(self, path: Path, width: int) -> None:
        self.path = path
        self.width = width

    def write(
        self,
        featurizer: Featurizer,
        utterances: Sequence[Utterance],
        share: float,
        seed: int,
        progress: Callable[[int], None] = lambda utterances: None,
    ) -> int:
        """Write the features of all utterances, as tokenizers compute them, and return the number of frames written.

        Of each utterance, a random ``share`` of the frames is kept, which depends on ``seed`` and its key only.

        Raises:
            AudioError: a file cannot be read.
        """
        if not 0 < share <= 1:
            raise ValueError(f"share must lie in (0, 1], got {share}")
        rows = 0
        with self.path.open("wb") as file:
            for utterance in utterances:
                rng = utterance_rng(seed, 0, utterance.key)
                for batch in featurizer.iter_features([featurizer.record(utterance.path)]):
                    features = batch.features[0].float().cpu()
                    if share < 1:
                        features = features[torch.from_numpy(rng.random(len(features)) < share)]
                    file.write(features.numpy().tobytes())
                    rows += len(features)
                progress(1)
        return rows

    def chunks(self, rows: int = 65_536) -> Iterable[Tensor]:
        """The features from the start, ``rows`` at a time."""
        return self._chunks(rows)

    def _chunks(self, rows: int) -> Iterator[Tensor]:
        with self.path.open("rb") as file:
            while data := file.read(rows * self.width * 4):
                yield torch.from_numpy(np.frombuffer(bytearray(data), dtype=np.float32).reshape(-1, self.width))
