"""Speaker perturbation (Spin, arXiv 2305.11072): change the voice of an utterance and keep its words.

``draw`` draws the parameters of an utterance, ``perturb`` applies them to a batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from spintok_kernels.perturb import BANDS, decimate, equalize, samples_per_call
from torch import Tensor

from spintok.augment.pitch import track_pitch
from spintok.augment.psola import resynthesize

__all__ = ["Perturbation", "PerturbationStrength", "check_batch", "draw", "perturb"]


@dataclass(frozen=True)
class PerturbationStrength:
    """The bounds of the draw; the defaults are Spin's. A ratio bound of 1 or ``gain_db`` 0 disables that part."""

    formant: float = 1.4
    median: float = 2.0
    spread: float = 1.5
    gain_db: float = 12.0
    q_min: float = 2.0
    q_max: float = 5.0

    def __post_init__(self) -> None:
        for name in ("formant", "median", "spread"):
            if not 1 <= getattr(self, name) <= 4:
                raise ValueError(f"the bound {name} is a ratio from 1 to 4, got {getattr(self, name)}")
        if not 0 <= self.gain_db <= 40:
            raise ValueError(f"gain_db must be from 0 to 40 decibels, got {self.gain_db}")
        if not 0.1 <= self.q_min <= self.q_max <= 5:
            raise ValueError(f"need 0.1 <= q_min <= q_max <= 5, got {self.q_min} and {self.q_max}")


@dataclass(frozen=True)
class Perturbation:
    """The parameters of one utterance.

    ``formant``, ``median`` and ``spread`` multiply the formants, the median F0 and the distance of F0 from its median.
    ``gains`` (decibels) and ``qs`` belong to the ten bands of the equalizer.
    """

    formant: float = 1.0
    median: float = 1.0
    spread: float = 1.0
    gains: tuple[float, ...] = (0.0,) * BANDS
    qs: tuple[float, ...] = (2.0,) * BANDS

    def __post_init__(self) -> None:
        for name in ("formant", "median", "spread"):
            if not 0.25 <= getattr(self, name) <= 4:
                raise ValueError(f"the ratio {name} must be from 1/4 to 4, got {getattr(self, name)}")
        if len(self.gains) != BANDS or len(self.qs) != BANDS:
            raise ValueError(f"need {BANDS} gains and {BANDS} qs, got {len(self.gains)} and {len(self.qs)}")
        if not all(abs(gain) <= 40 for gain in self.gains) or not all(0.1 <= q <= 5 for q in self.qs):
            raise ValueError(f"gains must be within 40 dB and qs from 0.1 to 5, got {self.gains} and {self.qs}")


def draw(rng: np.random.Generator, strength: PerturbationStrength | None = None) -> Perturbation:
    """Draw the parameters of an utterance.

    The formant, median and range ratios are uniform from 1 to their bound and inverted with probability 1/2; the gains
    are uniform within ``gain_db`` and the Qs log-uniform.
    """
    strength = strength or PerturbationStrength()
    bounds = np.array([strength.formant, strength.median, strength.spread])
    ratios = 1 + (bounds - 1) * rng.random(3)
    ratios = np.where(rng.random(3) < 0.5, 1 / ratios, ratios)
    gains = strength.gain_db * (2 * rng.random(BANDS) - 1)
    qs = strength.q_min * (strength.q_max / strength.q_min) ** rng.random(BANDS)
    formant, median, spread = ratios.tolist()
    return Perturbation(formant, median, spread, tuple(gains.tolist()), tuple(qs.tolist()))


def perturb(waveforms: Tensor, lengths: Tensor, parameters: Sequence[Perturbation]) -> Tensor:
    """Perturb ``waveforms`` (B, S), float32 at 16 kHz with ``lengths`` (B,) in samples, by one set of parameters each.

    Returns (B, S) within [-1, 1]: every utterance keeps its length and is zero past its end. The CPU processes a few
    utterances at a time; CUDA processes the whole batch without waiting for the device. The result of an utterance
    does not depend on the others. Raises ``ValueError`` if the arguments do not match.
    """
    check_batch(waveforms, lengths, len(parameters))
    if waveforms.numel() == 0:
        return waveforms.clone()
    device = waveforms.device
    drawn = [[p.formant, p.median, p.spread, *p.gains, *p.qs] for p in parameters]
    # The parameters may be numpy float64.
    values = torch.tensor(drawn, dtype=torch.float32)
    values = values.to(device, non_blocking=True)
    waveforms, lengths = waveforms.contiguous(), lengths.to(device, torch.int64, non_blocking=True).contiguous()
    passes = math.ceil(waveforms.numel() / samples_per_call(waveforms))
    rows = math.ceil(len(waveforms) / passes)
    parts = zip(waveforms.split(rows), lengths.split(rows), values.split(rows), strict=True)
    done = [_perturb(*part) for part in parts]
    return done[0] if len(done) == 1 else torch.cat(done)


def check_batch(waveforms: Tensor, lengths: Tensor, count: int) -> None:
    """Raise ``ValueError`` unless ``waveforms``, ``lengths`` and the count of parameters are one batch.

    The values of the lengths are checked on the CPU only: on a GPU this would wait for the device.
    """
    if waveforms.ndim != 2 or waveforms.dtype != torch.float32:
        raise ValueError(f"waveforms must be (B, S) float32, got {tuple(waveforms.shape)} {waveforms.dtype}")
    if lengths.shape != waveforms.shape[:1] or lengths.is_floating_point():
        raise ValueError(f"lengths must be ({len(waveforms)},) integers, got {tuple(lengths.shape)} {lengths.dtype}")
    if count != len(waveforms):
        raise ValueError(f"need parameters for {len(waveforms)} utterances, got {count}")
    if lengths.device.type == "cpu" and ((lengths < 0) | (lengths > waveforms.shape[1])).any():
        raise ValueError(f"lengths must be from 0 to {waveforms.shape[1]} samples, got {lengths.tolist()}")


@torch.no_grad()
def _perturb(waveforms: Tensor, lengths: Tensor, values: Tensor) -> Tensor:
    formant, median, spread = values[:, :3].T.contiguous()
    low = decimate(waveforms, lengths)
    track = track_pitch(low, lengths)
    moved = resynthesize(waveforms, lengths, low, track, formant, median, spread)
    return equalize(moved, values[:, 3 : 3 + BANDS], values[:, 3 + BANDS :], lengths).clamp_(-1.0, 1.0)
