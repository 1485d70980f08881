"""What a push to a stream returns: the tokens of the frames that became final."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spintok.tokens import Tokens

__all__ = ["StreamTokens", "merge"]


@dataclass(frozen=True, eq=False)
class StreamTokens(Tokens):
    """Tokens of a part of a stream.

    Runs end with the part. If the first one goes on with the code of the last frame before it, ``continues`` says so:
    whoever counts runs adds its duration to the run before, as ``merge`` does.

    Attributes:
        start: the number of the first frame.
        continues: whether the first code equals the last one before this part.
    """

    start: int = 0
    continues: bool = False

    @property
    def times(self) -> NDArray[np.float64]:
        """Start and end of each run in seconds since the stream began, (R, 2) float64."""
        return super().times + self.start / self.frame_rate


def merge(parts: Sequence[StreamTokens]) -> StreamTokens:
    """Consecutive parts of a stream, at least one, as one part; runs that go on from one to the next are whole."""
    codes = np.concatenate([part.codes for part in parts])
    filled = next((part for part in parts if part.num_frames), parts[0])
    return StreamTokens(codes, filled.codebook_size, grid=filled.grid, start=filled.start, continues=filled.continues)
