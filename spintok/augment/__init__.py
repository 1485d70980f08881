"""Changes to a waveform: speaker perturbation, noise, rooms, tempo, codecs; for training views and robustness tests."""

from spintok.augment.random import utterance_rng
from spintok.augment.speaker import Perturbation, PerturbationStrength, draw, perturb

__all__ = ["Perturbation", "PerturbationStrength", "draw", "perturb", "utterance_rng"]
