"""Feature extractors that compute each utterance of a batch by itself."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from spintok.frames import num_frames
from spintok.models.base import FeatureExtractor
from spintok.models.statistics import WaveformStatistics

__all__ = ["OneByOne"]


class OneByOne(FeatureExtractor):
    """Someone else's model, whose features would depend on padding: batches gain no speed."""

    @abstractmethod
    def features_alone(
        self, waveform: Tensor, layers: Sequence[int], statistics: WaveformStatistics | None
    ) -> list[Tensor]:
        """Features (T, D) of each of the layers, for one waveform (S,) of at least one frame.

        ``statistics`` are those of the whole recording, if the waveform is a part of it. More than T frames may be
        given. Raises ``ValueError`` for fewer.
        """

    def hidden_states(
        self,
        waveforms: Tensor,
        lengths: Tensor | None = None,
        *,
        layers: Sequence[int] | None = None,
        statistics: WaveformStatistics | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        layers = range(self.num_layers + 1) if layers is None else layers
        self.check_layers(layers)
        batch, samples = waveforms.shape
        sizes = [samples] * batch if lengths is None else lengths.tolist()
        if len(sizes) != batch or not all(0 <= size <= samples for size in sizes):
            raise ValueError(f"lengths must be {batch} numbers in 0 ... {samples}, got {sizes[:20]}")
        counts = [num_frames(size, self.grid) for size in sizes]
        states = [waveforms.new_zeros(batch, num_frames(samples, self.grid), self.num_features) for _ in layers]
        for row, (size, count) in enumerate(zip(sizes, counts, strict=True)):
            if count:
                whole = None if statistics is None else statistics[row : row + 1]
                found = self.features_alone(waveforms[row, :size], layers, whole)
                for state, one in zip(states, found, strict=True):
                    state[row, :count] = one[:count]
        return states, torch.tensor(counts, device=waveforms.device)
