"""Long audio is encoded in overlapping chunks, of which the middle frames are kept."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from spintok.frames import GRID, SAMPLE_RATE, FrameGrid, num_frames, num_samples

__all__ = ["Chunk", "Window", "chunks"]


# Some 1,300 hours: more is a damaged configuration.
_LONGEST = 1 << 28


@dataclass(frozen=True)
class Window:
    """The size of the chunks: each keeps ``keep`` frames and reads ``context`` more frames on either side."""

    keep: int = 1000
    context: int = 250

    def __post_init__(self) -> None:
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in (self.keep, self.context)):
            raise ValueError(f"keep and context of a window must be integers, got {self}")
        if max(self.keep, self.context) > _LONGEST:
            raise ValueError(f"a window is limited to {_LONGEST} frames, got {self}")
        if self.keep < 1 or self.context < 0:
            raise ValueError(f"a window must keep at least 1 frame, with a context of at least 0 frames, got {self}")

    @classmethod
    def within(cls, seconds: float, grid: FrameGrid = GRID) -> "Window":
        """A window of ``seconds``, at least one frame: two thirds are kept, one sixth on either side is context."""
        frames = int(seconds * SAMPLE_RATE) // grid.hop
        context = frames // 6
        return cls(frames - 2 * context, context)

    @property
    def frames(self) -> int:
        """Frames of a full window. Audio that has no more frames is encoded in one pass."""
        return self.keep + 2 * self.context

    def samples(self, grid: FrameGrid = GRID) -> int:
        """The largest number of samples that a window reads, and that audio encoded in one pass has."""
        return num_samples(self.frames + 1, grid) - 1


class Chunk(NamedTuple):
    """Samples (S,) of a chunk. Of its frames, the first ``skip`` are dropped and the next ``keep`` are kept."""

    waveform: Tensor
    skip: int
    keep: int


def chunks(blocks: Iterable[Tensor], window: Window, grid: FrameGrid = GRID) -> Iterator[Chunk]:
    """Cut a waveform, given as consecutive blocks (S_i,), into chunks that keep each of its frames exactly once."""
    buffer = torch.empty(0)
    # The frame at which the buffer starts, and the first frame that no chunk has kept yet.
    first = start = 0
    for block in blocks:
        buffer = torch.cat([buffer, block])
        # The last chunk must see the end of the audio, so cut only when there is audio after the chunk.
        while len(buffer) > num_samples(start + window.keep + window.context + 1 - first, grid):
            end = start + window.keep
            yield Chunk(buffer[: num_samples(end + window.context - first, grid)], start - first, window.keep)
            start, following = end, max(0, end - window.context)
            buffer, first = buffer[(following - first) * grid.hop :], following
    total = first + num_frames(len(buffer), grid)
    while start < total:
        keep = min(window.keep, total - start)
        stop = min(total, start + keep + window.context)
        yield Chunk(buffer[: num_samples(stop - first, grid)], start - first, keep)
        start, following = start + keep, max(0, start + keep - window.context)
        buffer, first = buffer[(following - first) * grid.hop :], following
