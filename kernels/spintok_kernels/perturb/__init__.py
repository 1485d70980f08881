"""Speaker perturbation: the heavy passes of pitch tracking, overlap-add and the equalizer."""

# Importing the submodule `torch` binds that name here: use no other `torch` in this file.
from spintok_kernels.perturb.equalizer import BANDS, CENTERS
from spintok_kernels.perturb.op import (
    choose_pitch,
    decimate,
    equalize,
    overlap_add,
    pitch_candidates,
    samples_per_call,
)
from spintok_kernels.perturb.tables import (
    CANDIDATES,
    CELL,
    FLOOR,
    HIGHEST,
    PITCH_HOP,
    STEPS_PER_OCTAVE,
    UNVOICED_PERIOD,
)

__all__ = [
    "BANDS",
    "CANDIDATES",
    "CELL",
    "CENTERS",
    "FLOOR",
    "HIGHEST",
    "PITCH_HOP",
    "STEPS_PER_OCTAVE",
    "UNVOICED_PERIOD",
    "choose_pitch",
    "decimate",
    "equalize",
    "overlap_add",
    "pitch_candidates",
    "samples_per_call",
]
