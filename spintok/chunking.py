"""Long audio in overlapping windows: which samples to read and which frames to keep."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from spintok.frames import HOP, SAMPLE_RATE, num_frames, num_samples

__all__ = ["Piece", "Window", "pieces"]


@dataclass(frozen=True)
class Window:
    """How audio is cut: each window keeps ``keep`` frames and reads ``context`` more on either side."""

    keep: int = 1000
    context: int = 250

    def __post_init__(self) -> None:
        if self.keep < 1 or self.context < 0:
            raise ValueError(f"a window keeps at least 1 frame and reads at least 0 around them, got {self}")

    @classmethod
    def within(cls, seconds: float) -> "Window":
        """A window of ``seconds``, from 0.02 on: two thirds are kept, a sixth is context on either side."""
        frames = int(seconds * SAMPLE_RATE) // HOP
        context = frames // 6
        return cls(frames - 2 * context, context)

    @property
    def frames(self) -> int:
        """Frames of a whole window: audio of no more is encoded in one pass."""
        return self.keep + 2 * self.context

    @property
    def samples(self) -> int:
        """The most samples that a window reads, and that audio encoded in one pass has."""
        return num_samples(self.frames + 1) - 1


class Piece(NamedTuple):
    """A window's samples, (S,), and which of its frames count: ``skip`` left out, then ``keep`` kept."""

    waveform: Tensor
    skip: int
    keep: int


def pieces(blocks: Iterable[Tensor], window: Window) -> Iterator[Piece]:
    """Cut consecutive blocks of one waveform into windows whose kept frames are each frame of it exactly once."""
    held = torch.empty(0)
    # The frame that ``held`` starts with, and the first frame not yet kept.
    first = start = 0
    for block in blocks:
        held = torch.cat([held, block])
        # The last window must see the end, so a window is cut only when audio beyond it has come.
        while len(held) > num_samples(start + window.keep + window.context + 1 - first):
            end = start + window.keep
            yield Piece(held[: num_samples(end + window.context - first)], start - first, window.keep)
            start, following = end, max(0, end - window.context)
            held, first = held[(following - first) * HOP :], following
    total = first + num_frames(len(held))
    while start < total:
        keep = min(window.keep, total - start)
        stop = min(total, start + keep + window.context)
        # The last window reads the samples after its last frame too: they belong to no frame.
        yield Piece(held[: num_samples(stop - first)], start - first, keep)
        start, following = start + keep, max(0, start + keep - window.context)
        held, first = held[(following - first) * HOP :], following
