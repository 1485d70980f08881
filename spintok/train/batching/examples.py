"""Batches, and the recordings in them: read, cropped and padded, with random draws that belong to each utterance."""

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
from spintok.train.batching.plan import BatchSpec, Position

__all__ = ["Batch", "Crop", "Examples", "Recordings", "pad"]

Examples = Callable[[BatchSpec], "Batch"]
"""Prepares a batch on the CPU; equal specs give equal batches in any process."""


@dataclass(frozen=True, eq=False)
class Batch:
    """One process's share of a batch.

    Attributes:
        position: the position of the batch in the data.
        seconds: seconds of audio, without the second view.
        inputs: waveforms (B, S), or features (B, T, D) of the frozen layers, of the first view; for a decoder, acoustic
            parameters; zero where padded.
        lengths: (B,) samples, or frames.
        second: the second view, in the same form as ``inputs``; None for stages with one view.
        second_lengths: (B,) samples of the second view; None if they are ``lengths``.
        shared: (B, 3) which frames of the two views are the same speech: the first such frame of the first view and of
            the second, and their number; None if all are.
        masked: (B, T) True where a frame is masked.
        labels: (B, T) int64 label of each frame of the first view, -1 where it has none or is padded; (B, T, L) for
            several kinds of labels; for CTC, (B, U) symbols.
        pauses: (B, T) True where a frame of the first view lies in a pause, False where padded.
        voices: (B,) number of the voice of each utterance.
        chunk: frames that the encoder may see at once, as in a stream (``Encoder.hidden_states``); None for all. With
            two views, only the second is cut.
    """

    position: Position
    seconds: float
    inputs: Tensor
    lengths: Tensor
    second: Tensor | None = None
    second_lengths: Tensor | None = None
    shared: Tensor | None = None
    masked: Tensor | None = None
    labels: Tensor | None = None
    pauses: Tensor | None = None
    voices: Tensor | None = None
    chunk: int | None = None

    def to(self, device: torch.device) -> "Batch":
        """A copy on ``device``."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """A copy in pinned memory; ``DataLoader`` calls this."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {name: change(v) for name, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **changed)


@dataclass(frozen=True)
class Crop:
    """Part of a recording: its waveform (S,), and the index of its first frame in the recording."""

    waveform: Tensor
    first_frame: int

    @property
    def frames(self) -> int:
        """T, the number of frames of the crop."""
        return num_frames(len(self.waveform))


@dataclass(frozen=True)
class Recordings:
    """The utterances of a corpus.

    Attributes:
        utterances: the list whose indices batches refer to as rows.
        max_samples: longer utterances are cropped to this many samples.
    """

    utterances: Sequence[Utterance]
    max_samples: int

    def crop(self, row: int, rng: np.random.Generator) -> Crop:
        """Utterance ``row``, or a random crop of it that starts on a frame boundary, so that frames keep their labels.

        Raises:
            AudioError: the file cannot be read.
            ValueError: the file is shorter than its header says.
        """
        utterance = self.utterances[row]
        waveform = read(utterance.path)
        spare = len(waveform) - self.max_samples
        # Draw in any case, so that later draws do not depend on the length.
        offset = rng.random()
        if spare > 0:
            first = int(offset * (spare // HOP + 1))
            waveform = waveform[first * HOP : first * HOP + self.max_samples]
            return Crop(waveform, first)
        if len(waveform) < num_samples(1):
            raise ValueError(f"{utterance.path}: has {len(waveform)} samples, fewer than its header says")
        return Crop(waveform, 0)


def pad(rows: Sequence[Tensor], value: float = 0.0) -> tuple[Tensor, Tensor]:
    """Stack tensors (N_i, ...) into (B, max N_i, ...), padded with ``value``; also return the sizes N_i (B,)."""
    lengths = torch.tensor([len(row) for row in rows])
    return pad_sequence(list(rows), batch_first=True, padding_value=value), lengths
