"""Conditions: perturbations of speech that keep its words, and to which tokens should therefore be robust.

The random generator depends only on the seed, the utterance and the kind of perturbation. Noise at several levels is
therefore the same noise, and two tokenizers get the same audio.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from spintok.augment import Perturbation, draw, perturb, utterance_rng
from spintok.augment.codec import opus, vorbis
from spintok.augment.noise import add_noise, add_reverb, band_limit, impulse_responses
from spintok.augment.tempo import time_stretch
from spintok.data.manifest import Utterance
from spintok.evaluate.noise_sources import NoiseSources
from spintok.frames import FRAME_RATE, GRID, HOP, SAMPLE_RATE, FrameGrid, frame_center_seconds, num_frames

__all__ = ["CONDITIONS", "MEANINGS", "Condition", "Kind", "Perturbed", "apply"]

Kind = Literal[
    "speaker", "white", "babble", "noise", "reverb", "room", "pitch", "tempo", "opus", "vorbis", "gain", "band",
    "shift", "pad", "crop", "dc", "short",
]  # fmt: skip

MEANINGS: dict[Kind, str] = {
    "speaker": "another voice: formants, pitch and equalizer, drawn as Spin does",
    "white": "dB signal-to-noise ratio, white noise",
    "babble": "dB signal-to-noise ratio, five other utterances at once",
    "noise": "dB signal-to-noise ratio, a file from the noise folder",
    "reverb": "s reverberation time, a synthetic room",
    "room": "an impulse response from the folder of rooms",
    "pitch": "semitones, formants unchanged",
    "tempo": "times as fast, pitch unchanged",
    "opus": "kbit/s Ogg Opus",
    "vorbis": "Ogg Vorbis quality, 0 to 1",
    "gain": "dB louder",
    "band": "Hz, low-pass",
    "shift": "samples removed from the start",
    "pad": "s of zeros after the speech, before it if negative",
    "crop": "s removed from the start",
    "dc": "constant added to every sample",
    "short": "s long piece cut out at random and encoded alone",
}
"""The meaning and unit of the strength of each kind."""

_LIMITS: dict[Kind, tuple[float, float]] = {
    "tempo": (0.5, 2.0),
    "pitch": (-24, 24),
    "opus": (6, 256),
    "vorbis": (0, 1),
    "reverb": (0.01, 10),
    "band": (100, 8000),
    "shift": (0, HOP - 1),
    "pad": (-60, 60),
    "crop": (0.02, 60),
    "dc": (-1, 1),
    "short": (0.1, 60),
}
_DRAWN: frozenset[Kind] = frozenset({"speaker", "room"})
"""Kinds without a strength."""
_WHOLE_FRAMES: frozenset[Kind] = frozenset({"pad", "crop"})
"""Kinds whose strength must be a whole number of frames, so that frames before and after correspond."""


@dataclass(frozen=True)
class Condition:
    """A kind of perturbation and its strength in the unit of ``MEANINGS``; None for kinds that draw it at random."""

    kind: Kind
    strength: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in MEANINGS:
            raise ValueError(f"unknown condition {self.kind!r}; known: {', '.join(MEANINGS)}")
        if (self.strength is None) != (self.kind in _DRAWN):
            raise ValueError(f"{self.kind} {'needs a' if self.strength is None else 'takes no'} strength")
        low, high = _LIMITS.get(self.kind, (-100, 100))
        if self.strength is not None and not low <= self.strength <= high:
            raise ValueError(f"the strength of {self.kind} must lie from {low} to {high}, got {self.strength}")
        if self.kind in _WHOLE_FRAMES and abs((self.strength or 0) * FRAME_RATE % 1 - 0.5) < 0.5 - 1e-6:
            raise ValueError(f"the strength of {self.kind} must be a multiple of 0.02 s, got {self.strength}")

    @property
    def name(self) -> str:
        """The kind and the strength, such as ``white_10``."""
        return self.kind if self.strength is None else f"{self.kind}_{self.strength:g}"


CONDITIONS: tuple[Condition, ...] = (
    Condition("speaker"),
    *(Condition(kind, snr) for kind in ("white", "babble", "noise") for snr in (20.0, 10.0, 5.0, 0.0)),
    Condition("reverb", 0.5),
    Condition("room"),
    Condition("pitch", -2.0),
    Condition("pitch", 2.0),
    Condition("tempo", 0.9),
    Condition("tempo", 1.1),
    Condition("opus", 12.0),
    Condition("vorbis", 0.0),
    Condition("gain", -12.0),
    Condition("gain", 12.0),
    Condition("band", 4000.0),
    Condition("shift", 160.0),
    Condition("pad", 2.0),
    Condition("pad", -0.5),
    Condition("crop", 1.0),
    Condition("dc", 0.05),
    *(Condition("short", seconds) for seconds in (0.4, 0.8, 1.6, 3.2)),
)
"""The conditions that ``spintok evaluate`` runs; ``noise`` and ``room`` need a folder of such files."""


@dataclass(frozen=True)
class Perturbed:
    """A perturbed waveform, and which of its frames correspond to which frames of the original.

    Frame ``first + i`` of the perturbed waveform corresponds to frame ``original + i`` of the original one, for i from
    0 to ``count`` - 1. The time t of the perturbed speech is the time t * tempo + delay of the original, after both are
    counted from the first corresponding frame.

    Attributes:
        waveform: (S,) float32 at 16 kHz.
        original, first: the first corresponding frame of either waveform.
        count: the number of corresponding frames; None for all frames of both waveforms.
        tempo: how many times as fast the perturbed speech is.
        delay: how many seconds of the original are missing at the start.
    """

    waveform: Tensor
    original: int = 0
    first: int = 0
    count: int | None = None
    tempo: float = 1.0
    delay: float = 0.0

    @property
    def aligned(self) -> bool:
        """Whether corresponding frames have the same time, so that their codes can be compared one by one."""
        return self.tempo == 1.0 and self.delay == 0.0

    def compared(self, original: NDArray[np.int32], perturbed: NDArray[np.int32]) -> tuple[NDArray[np.int32], ...]:
        """The parts of two sequences of codes that correspond."""
        if self.count is None:
            return original[self.original :], perturbed[self.first :]
        return (
            original[self.original : self.original + self.count],
            perturbed[self.first : self.first + self.count],
        )

    def times(self, frames: int, grid: FrameGrid = GRID) -> NDArray[np.float64]:
        """The time in the original, in seconds, of the centres of the first ``frames`` frames of the perturbed part."""
        return (frame_center_seconds(self.original, grid) + np.arange(frames) / grid.rate) * self.tempo + self.delay


def apply(
    condition: Condition,
    waveform: Tensor,
    utterance: Utterance,
    sources: NoiseSources,
    seed: int,
    grid: FrameGrid = GRID,
) -> Perturbed | None:
    """A waveform (S,) float32 at 16 kHz under a condition; None if it is too short for it.

    Only ``tempo``, ``shift``, ``pad``, ``crop`` and ``short`` change its length. ``pad`` and ``crop`` need a strength
    of whole frames of ``grid``, and raise ``ValueError`` otherwise.
    """
    strength = condition.strength or 0.0
    frames, hop = num_frames(len(waveform), grid), grid.hop
    skip = round(abs(strength) * grid.rate)
    if condition.kind in _WHOLE_FRAMES and abs(skip - abs(strength) * grid.rate) > 1e-6:
        raise ValueError(
            f"the strength of {condition.kind} must be a multiple of {1 / grid.rate:g} s, which its frames step "
            f"by, got {strength:g}"
        )
    match condition.kind:
        case "tempo":
            return Perturbed(torch.from_numpy(time_stretch(waveform.numpy(), strength)), tempo=strength)
        case "shift":
            return Perturbed(waveform[int(strength) :], delay=strength / SAMPLE_RATE)
        case "pad" if strength < 0:
            return Perturbed(F.pad(waveform, (skip * hop, 0)), first=skip, count=frames)
        case "pad":
            return Perturbed(F.pad(waveform, (0, skip * hop)), count=frames)
        case "crop":
            return Perturbed(waveform[skip * hop :], original=skip) if frames > skip else None
        case "short":
            length = round(strength * SAMPLE_RATE)
            if len(waveform) <= length or num_frames(length, grid) == 0:
                return None
            latest = (len(waveform) - length) // hop
            start = int(utterance_rng(seed, 0, f"{utterance.key}/short").integers(latest + 1))
            piece = waveform[start * hop : start * hop + length]
            return Perturbed(piece, original=start, count=num_frames(length, grid))
        case _:
            return Perturbed(_same_length(condition, waveform, utterance, sources, seed))


def _same_length(
    condition: Condition, waveform: Tensor, utterance: Utterance, sources: NoiseSources, seed: int
) -> Tensor:
    strength = condition.strength or 0.0
    batch, lengths = waveform[None], torch.tensor([len(waveform)])
    match condition.kind:
        case "speaker":
            return perturb(batch, lengths, [draw(utterance_rng(seed, 0, f"{utterance.key}/speaker"))])[0]
        case "pitch":
            return perturb(batch, lengths, [Perturbation(median=2 ** (strength / 12))])[0]
        case "white" | "babble" | "noise":
            noise = sources.noise(condition.kind, utterance, len(waveform), seed)
            return add_noise(batch, lengths, noise[None], torch.tensor([strength]))[0]
        case "reverb":
            rng = utterance_rng(seed, 0, f"{utterance.key}/reverb")
            return add_reverb(batch, lengths, impulse_responses(rng, torch.tensor([strength])))[0]
        case "room":
            return add_reverb(batch, lengths, sources.noise("room", utterance, len(waveform), seed)[None])[0]
        case "opus":
            return opus(waveform, strength)
        case "vorbis":
            return vorbis(waveform, strength)
        case "gain":
            return waveform * 10 ** (strength / 20)
        case "band":
            return band_limit(waveform, strength)
        case "dc":
            return waveform + strength
        case _:
            raise ValueError(f"{condition.kind} changes the length")
