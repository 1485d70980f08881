"""Features of a corpus in one file on disk, so that many passes over them run the encoder once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spintok.augment.random import utterance_rng
from spintok.data.audio import read
from spintok.data.manifest import Utterance

__all__ = ["FeatureFile"]


class FeatureFile:
    """Features (N, D) float32 in a raw file, read back in chunks."""

    def __init__(self, path: Path, width: int) -> None:
        self.path = path
        self.width = width

    @torch.inference_mode()
    def write(
        self,
        extract: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        utterances: Sequence[Utterance],
        share: float,
        seed: int,
        progress: Callable[[int], None] = lambda utterances: None,
    ) -> int:
        """Extract the features of all utterances, keep ``share`` of the frames, and return how many that were.

        Args:
            extract: waveforms (B, S) and lengths (B,) to features (B, T, D) and frame counts (B,).
        """
        if not 0 < share <= 1:
            raise ValueError(f"share must lie in (0, 1], got {share}")
        rows = 0
        with self.path.open("wb") as file:
            for utterance in utterances:
                waveform = read(utterance.path)
                features = extract(waveform[None], torch.tensor([len(waveform)]))[0][0]
                if share < 1:
                    keep = utterance_rng(seed, 0, utterance.key).random(len(features)) < share
                    features = features[torch.from_numpy(keep)]
                file.write(features.cpu().numpy().astype(np.float32).tobytes())
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
