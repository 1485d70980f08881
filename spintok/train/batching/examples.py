"""What a batch holds, and the recordings in it: read, cropped and padded, by draws that belong to each utterance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spintok.data.audio import read
from spintok.data.manifest import Utterance
from spintok.frames import HOP, num_frames, num_samples
from spintok.train.batching.plan import Place, Planned

__all__ = ["Batch", "Crop", "Examples", "Recordings", "pad"]

Examples = Callable[[Planned], "Batch"]
"""Prepares a planned batch, on the CPU; the same plan gives the same batch in any process."""


@dataclass(frozen=True, eq=False)
class Batch:
    """One rank's share of a batch.

    Attributes:
        place: where it stands in the data.
        seconds: of original audio.
        inputs: waveforms (B, S), or the frozen part's features (B, T, D), of the first view, zero where padded.
        lengths: (B,) samples, or frames.
        second: of the second view, as ``inputs``; None where a stage has one view.
        masked: (B, T) True where a frame is masked.
        labels: (B, T) int64, the label of each frame, -1 where padded; or for CTC (B, U) symbols.
    """

    place: Place
    seconds: float
    inputs: Tensor
    lengths: Tensor
    second: Tensor | None = None
    masked: Tensor | None = None
    labels: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same in memory that a GPU reads without waiting; a ``DataLoader`` calls it."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {name: change(v) for name, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **changed)


@dataclass(frozen=True)
class Crop:
    """A stretch of a recording: its waveform (S,), and its first frame in the recording."""

    waveform: Tensor
    first_frame: int

    @property
    def frames(self) -> int:
        """T, the frames of the stretch."""
        return num_frames(len(self.waveform))


@dataclass(frozen=True)
class Recordings:
    """The utterances of a corpus, and the longest stretch of one that goes into a batch.

    Attributes:
        utterances: the list that plans number.
        max_samples: of a stretch.
    """

    utterances: Sequence[Utterance]
    max_samples: int

    def crop(self, row: int, rng: np.random.Generator) -> Crop:
        """Utterance ``row``, whole or a random stretch that starts at a frame, so that frames keep their labels.

        Raises:
            AudioError: the file cannot be read.
        """
        utterance = self.utterances[row]
        waveform = read(utterance.path)
        spare = len(waveform) - self.max_samples
        # The draw is made whether or not it is used, so that what follows it does not depend on the length.
        place = rng.random()
        if spare > 0:
            first = int(place * (spare // HOP + 1))
            waveform = waveform[first * HOP : first * HOP + self.max_samples]
            return Crop(waveform, first)
        if len(waveform) < num_samples(1):
            raise ValueError(f"{utterance.path}: {len(waveform)} samples are fewer than its header says")
        return Crop(waveform, 0)


def pad(rows: Sequence[Tensor], value: float = 0.0) -> tuple[Tensor, Tensor]:
    """Tensors that agree in all but their first size, stacked and padded, and these sizes (B,)."""
    lengths = torch.tensor([len(row) for row in rows])
    return pad_sequence(list(rows), batch_first=True, padding_value=value), lengths
