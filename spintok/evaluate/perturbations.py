"""Conditions: perturbations of speech that keep its words, and to which tokens should therefore be robust.

The random generator depends only on the seed, the utterance and the kind of perturbation. Noise at several levels is
therefore the same noise, and two tokenizers get the same audio.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from spintok.augment import Perturbation, draw, perturb, utterance_rng
from spintok.augment.codec import opus, vorbis
from spintok.augment.noise import add_noise, add_reverb, babble, band_limit, excerpt, impulse_responses
from spintok.augment.tempo import time_stretch
from spintok.data.audio import read
from spintok.data.manifest import Utterance
from spintok.frames import HOP

__all__ = ["CONDITIONS", "MEANINGS", "Condition", "Kind", "NoiseSources", "apply"]

Kind = Literal[
    "speaker", "white", "babble", "noise", "reverb", "room", "pitch", "tempo", "opus", "vorbis", "gain", "band", "shift"
]

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
}
"""The meaning and unit of the strength of each kind."""

_VOICES = 5


@dataclass(frozen=True)
class Condition:
    """A kind of perturbation and its strength in the unit of ``MEANINGS``; None for kinds that draw it at random."""

    kind: Kind
    strength: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in MEANINGS:
            raise ValueError(f"unknown condition {self.kind!r}; known: {', '.join(MEANINGS)}")
        if (self.strength is None) != (self.kind in ("speaker", "room")):
            raise ValueError(f"{self.kind} {'needs a' if self.strength is None else 'takes no'} strength")
        allowed = {
            "tempo": (0.5, 2.0),
            "pitch": (-24, 24),
            "opus": (6, 256),
            "vorbis": (0, 1),
            "reverb": (0.01, 10),
            "band": (100, 8000),
            "shift": (0, HOP - 1),
        }
        low, high = allowed.get(self.kind, (-100, 100))
        if self.strength is not None and not low <= self.strength <= high:
            raise ValueError(f"the strength of {self.kind} must lie from {low} to {high}, got {self.strength}")

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
)
"""The conditions that ``spintok evaluate`` runs; ``noise`` and ``room`` need a folder of such files."""


class NoiseSources:
    """The sounds that conditions mix in: other utterances for babble, noise files, and impulse responses."""

    def __init__(
        self, utterances: Sequence[Utterance] = (), noise: Sequence[Path] = (), rooms: Sequence[Path] = ()
    ) -> None:
        self._utterances = list(utterances)
        self._noise = list(noise)
        self._rooms = list(rooms)
        # Several levels of one noise are requested in a row, so the last noise is cached.
        self._last: tuple[tuple[str, str, int, int], Tensor] | None = None

    def __repr__(self) -> str:
        return f"NoiseSources(noise={[str(path) for path in self._noise]}, rooms={[str(path) for path in self._rooms]})"

    def missing(self, kind: Kind) -> str | None:
        """What this kind of condition needs and these sources lack, in words; None if they have it."""
        match kind:
            case "babble" if len(self._utterances) < 2:
                return "babble needs at least two utterances"
            case "noise" if not self._noise:
                return "noise needs a folder of noise files (--noise)"
            case "room" if not self._rooms:
                return "rooms need a folder of impulse responses (--rooms)"
            case _:
                return None

    def noise(self, kind: Kind, utterance: Utterance, samples: int, seed: int) -> Tensor:
        """Noise or an impulse response for an utterance of ``samples`` samples, (M,) float32.

        Raises ``ValueError`` if these sources lack it.
        """
        name = (kind, utterance.key, samples, seed)
        if self._last is None or self._last[0] != name:
            lacking = self.missing(kind)
            if lacking is not None:
                raise ValueError(lacking)
            self._last = (name, self._draw(kind, utterance, samples, utterance_rng(seed, 0, f"{utterance.key}/{kind}")))
        return self._last[1]

    def _draw(self, kind: Kind, utterance: Utterance, samples: int, rng: np.random.Generator) -> Tensor:
        match kind:
            case "white":
                return torch.from_numpy(rng.standard_normal(samples, dtype=np.float32))
            case "noise":
                return excerpt(read(self._noise[int(rng.integers(len(self._noise)))]), samples, rng)
            case "room":
                return read(self._rooms[int(rng.integers(len(self._rooms)))])
            case _:
                return self._babble(utterance, samples, rng)

    def _babble(self, utterance: Utterance, samples: int, rng: np.random.Generator) -> Tensor:
        """A mix of other utterances at equal levels, from other speakers if speakers are known."""
        others = [u for u in self._utterances if u.key != utterance.key]
        strangers = [u for u in others if u.speaker is None or u.speaker != utterance.speaker]
        pool = strangers or others
        chosen = rng.choice(len(pool), min(_VOICES, len(pool)), replace=False).tolist()
        return babble([excerpt(read(pool[index].path), samples, rng) for index in chosen])


def apply(condition: Condition, waveform: Tensor, utterance: Utterance, sources: NoiseSources, seed: int) -> Tensor:
    """A waveform (S,) float32 at 16 kHz under a condition; only ``tempo`` and ``shift`` change its length."""
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
        case "tempo":
            return torch.from_numpy(time_stretch(waveform.numpy(), strength))
        case "opus":
            return opus(waveform, strength)
        case "vorbis":
            return vorbis(waveform, strength)
        case "gain":
            return waveform * 10 ** (strength / 20)
        case "band":
            return band_limit(waveform, strength)
        case "shift":
            return waveform[int(strength) :]
