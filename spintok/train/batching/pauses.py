"""Find pauses by energy: long enough to be no closure of a plosive, and near the recording's own noise floor."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spintok.frames import HOP, RECEPTIVE_FIELD

__all__ = ["pauses"]

# Closures of plosives are shorter than this many frames.
_SHORTEST = 8
# Position of the threshold between the 5th and the 95th percentile of the energy in decibels.
_THRESHOLD = 0.5
# Decibels between these percentiles without which there is no telling pauses from speech.
_RANGE = 15.0


def pauses(waveform: Tensor) -> NDArray[np.bool_]:
    """(T,) True at frames of a waveform (S,) that lie in a pause of at least 0.16 s.

    A recording without pauses, in which quiet and loud frames differ by less than 15 dB, has none.
    """
    frames = waveform.unfold(0, RECEPTIVE_FIELD, HOP)
    energy = (10 * torch.log10(frames.var(1, correction=0) + 1e-8)).numpy()
    low, high = np.percentile(energy, [5, 95])
    quiet = energy < low + _THRESHOLD * (high - low)
    if high - low < _RANGE:
        return np.zeros(len(quiet), dtype=np.bool_)
    # Runs of equal values: bounds[i] ... bounds[i + 1] - 1.
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(quiet)) + 1, [len(quiet)]])
    lengths = np.diff(bounds)
    # A run at the border of the recording may go on outside.
    lengths[[0, -1]] = np.maximum(lengths[[0, -1]], _SHORTEST)
    return np.repeat(quiet[bounds[:-1]] & (lengths >= _SHORTEST), np.diff(bounds))
