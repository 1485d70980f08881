"""How long a stream may wait before a frame's code is final."""

import re
from dataclasses import dataclass

from spintok.frames import GRID, FrameGrid

__all__ = ["DEFAULT_LATENCY", "Policy", "parse_latency"]

DEFAULT_LATENCY = 0.32
"""Seconds of latency of a stream that names none."""

_LONGEST = 30


@dataclass(frozen=True)
class Policy:
    """The frames of a step.

    Attributes:
        chunk: frames whose codes are final after it.
        look: frames after them that it hears too, and that the next step computes again.
        grid: where the frames lie.
    """

    chunk: int
    look: int
    grid: FrameGrid = GRID

    @property
    def frames(self) -> int:
        """Frames of a step: the algorithmic latency, in frames."""
        return self.chunk + self.look

    @property
    def seconds(self) -> float:
        """The algorithmic latency. HuBERT's frames also read 5 ms of the next one."""
        return self.frames / self.grid.rate

    @classmethod
    def of(cls, latency: float, grid: FrameGrid, *, looks_ahead: bool) -> "Policy":
        """The policy of a latency in seconds: all of it is the chunk, or half of it the look-ahead.

        Raises:
            ValueError: it is no multiple of a frame (20 ms in HuBERT), or out of range.
        """
        frames = round(latency * grid.rate) if 0 < latency <= _LONGEST else 0
        least = 2 if looks_ahead else 1
        if frames < least or abs(frames / grid.rate - latency) > 1e-6:
            raise ValueError(
                f"latency must be a multiple of {1 / grid.rate:g} s, from {least / grid.rate:g} to {_LONGEST} s, "
                f"got {latency:g} s"
            )
        look = frames // 2 if looks_ahead else 0
        return cls(frames - look, look, grid)


def parse_latency(text: str) -> float:
    """Seconds from "320ms", "0.32s" or "0.32". Raises ``ValueError``."""
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(ms|s|)\s*", text)
    if found is None:
        raise ValueError(f"a latency is written as 320ms or 0.32s, got {text!r}")
    return float(found[1]) / (1000 if found[2] == "ms" else 1)
