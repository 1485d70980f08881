"""Errors of pitch and voicing, from F0 by WORLD (DIO and StoneMask) every 5 ms.

Voicing decision error as in Nakatani et al. 2008, "A method for fundamental frequency estimation and voicing decision",
and the root mean square of the difference in F0 over frames that are voiced in both, in cents.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spintok.evaluate.resynthesis.packages import load
from spintok.frames import SAMPLE_RATE

__all__ = ["PitchErrors", "pitch", "pitch_errors"]

Array = NDArray[np.float64]


class PitchErrors(NamedTuple):
    """Sums over the frames of one utterance.

    Attributes:
        frames: the frames that both have.
        decisions: frames that are voiced in one and not in the other.
        voiced: frames that are voiced in both.
        squares: over these, the squared differences of F0, in cents squared.
        contour_squares: the same after each F0 is divided by its geometric mean over these frames: whether the melody
            is kept, whatever the register of the voice.
    """

    frames: int
    decisions: int
    voiced: int
    squares: float
    contour_squares: float


def pitch(waveform: NDArray[np.float32]) -> Array:
    """F0 in Hz (T,) of a waveform at 16 kHz, a value each 5 ms, 0 where there is no voice."""
    world = load("pyworld", "F0")
    if not len(waveform):
        return np.zeros(0)
    samples = np.ascontiguousarray(waveform, dtype=np.float64)
    coarse, times = world.dio(samples, SAMPLE_RATE)
    found: Array = world.stonemask(samples, coarse, times, SAMPLE_RATE)
    return found


def pitch_errors(reference: Array, other: Array) -> PitchErrors:
    """Compare two F0 curves that start together; frames that only one of them has are left out."""
    frames = min(len(reference), len(other))
    first, second = reference[:frames], other[:frames]
    both = (first > 0) & (second > 0)
    cents = 1200 * np.log2(second[both] / first[both])
    centred = cents - cents.mean() if cents.size else cents
    return PitchErrors(
        frames,
        int(np.count_nonzero((first > 0) != (second > 0))),
        int(np.count_nonzero(both)),
        float(np.square(cents).sum()),
        float(np.square(centred).sum()),
    )
