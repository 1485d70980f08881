"""Speaker perturbation: the same words, as if another person had said them; views in training, tests of robustness."""

from spintok.augment.speaker import Perturbation, PerturbationStrength, draw, perturb, rng_for

__all__ = ["Perturbation", "PerturbationStrength", "draw", "perturb", "rng_for"]
