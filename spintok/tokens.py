"""Tokens of one utterance: one code per frame, and the runs of equal codes."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spintok.frames import GRID, FrameGrid, frames_to_seconds

__all__ = ["Tokens", "deduplicate", "expand"]

Codes = NDArray[np.int32]


def deduplicate(codes: ArrayLike) -> tuple[Codes, Codes]:
    """The runs of equal codes in ``codes`` (T,): ``(units, durations)``, each (R,) int32.

    ``units`` has the code of each run, ``durations`` its length in frames.
    """
    array = _codes(codes)
    if array.size == 0:
        return array, array.copy()
    starts = np.concatenate([[0], np.flatnonzero(array[1:] != array[:-1]) + 1])
    durations = np.diff(starts, append=array.size)
    return array[starts], durations.astype(np.int32)


def expand(units: ArrayLike, durations: ArrayLike) -> Codes:
    """One code per frame, (T,) int32, from runs: ``expand(*deduplicate(x))`` equals ``x``."""
    units, durations = _codes(units), _codes(durations)
    if units.shape != durations.shape:
        raise ValueError(f"units and durations must have the same length, got {units.size} and {durations.size}")
    if durations.size and durations.min() < 1:
        raise ValueError("every duration must be at least 1 frame")
    return np.repeat(units, durations)


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of one utterance from one codebook.

    Attributes:
        codes: the index of each frame's codeword, (T,) int32 in [0, codebook_size).
        codebook_size: K, the number of codewords.
        num_samples: the number of samples of the waveform at 16 kHz, if known.
        grid: where the frames lie.
    """

    codes: Codes
    codebook_size: int
    num_samples: int | None = None
    grid: FrameGrid = GRID

    def __post_init__(self) -> None:
        codes = _codes(self.codes)
        if self.codebook_size < 1:
            raise ValueError(f"codebook_size must be at least 1, got {self.codebook_size}")
        if codes.size and not 0 <= codes.min() <= codes.max() < self.codebook_size:
            raise ValueError(
                f"codes must be in [0, {self.codebook_size}), got {codes.min()} to {codes.max()}: "
                "they come from another codebook"
            )
        codes.setflags(write=False)
        object.__setattr__(self, "codes", codes)

    @classmethod
    def from_runs(
        cls,
        units: ArrayLike,
        durations: ArrayLike,
        codebook_size: int,
        num_samples: int | None = None,
        grid: FrameGrid = GRID,
    ) -> "Tokens":
        """Tokens from the code and the duration in frames of each run."""
        units, durations = _codes(units), _codes(durations)
        tokens = cls(expand(units, durations), codebook_size, num_samples, grid)
        if not (units[1:] == units[:-1]).any():
            # No two neighbours are equal, so these are the runs.
            tokens.__dict__["_runs"] = (units, durations)
        return tokens

    @cached_property
    def _runs(self) -> tuple[Codes, Codes]:
        return deduplicate(self.codes)

    @property
    def units(self) -> Codes:
        """The code of each run, (R,) int32: the de-duplicated sequence that a language model reads."""
        return self._runs[0]

    @property
    def durations(self) -> Codes:
        """The length of each run in frames, (R,) int32. They add up to ``num_frames``."""
        return self._runs[1]

    @property
    def num_frames(self) -> int:
        """T, the number of frames."""
        return int(self.codes.size)

    @property
    def frame_rate(self) -> int:
        """Frames per second."""
        return self.grid.rate

    @property
    def seconds(self) -> float:
        """The duration of the frames in seconds: ``num_frames / frame_rate``."""
        return frames_to_seconds(self.num_frames, self.grid)

    @property
    def times(self) -> NDArray[np.float64]:
        """Start and end of each run in seconds, (R, 2) float64."""
        ends = np.cumsum(self.durations, dtype=np.int64)
        return np.stack([ends - self.durations, ends], axis=1) / self.grid.rate

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokens):
            return NotImplemented
        alike = (self.codebook_size, self.grid) == (other.codebook_size, other.grid)
        return alike and np.array_equal(self.codes, other.codes)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"Tokens({self.num_frames} frames, {self.units.size} runs, {self.seconds:.2f} s, "
            f"codebook_size={self.codebook_size})"
        )


def _codes(values: ArrayLike) -> Codes:
    """A copy as a 1-D int32 array. Raises ``ValueError`` for other shapes, fractions and values beyond int32."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"codes must be a 1-D sequence, got shape {array.shape}")
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"codes must be integers, got {array.dtype}")
    if array.size and (array.min() < -(2**31) or array.max() >= 2**31):
        raise ValueError("codes must fit into 32 bits")
    return array.astype(np.int32)
