"""The sounds that conditions mix into speech."""

from collections.abc import Sequence
from contextlib import suppress
from os import PathLike

import numpy as np
import torch
from torch import Tensor

from spintok.augment import utterance_rng
from spintok.augment.noise import babble, excerpt
from spintok.data.audio import AudioError, read
from spintok.data.manifest import Utterance

__all__ = ["NoiseSources"]

_VOICES = 5


class NoiseSources:
    """The sounds that conditions mix in: other utterances for babble, noise files, and impulse responses."""

    def __init__(
        self,
        utterances: Sequence[Utterance] = (),
        noise: Sequence[str | PathLike[str]] = (),
        rooms: Sequence[str | PathLike[str]] = (),
    ) -> None:
        self._utterances = list(utterances)
        self._noise = list(noise)
        self._rooms = list(rooms)
        # Several levels of one noise are requested in a row, so the last noise is cached.
        self._last: tuple[tuple[str, str, int, int], Tensor] | None = None

    def __repr__(self) -> str:
        return f"NoiseSources(noise={[str(path) for path in self._noise]}, rooms={[str(path) for path in self._rooms]})"

    def missing(self, kind: str) -> str | None:
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

    def noise(self, kind: str, utterance: Utterance, samples: int, seed: int) -> Tensor:
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

    def _draw(self, kind: str, utterance: Utterance, samples: int, rng: np.random.Generator) -> Tensor:
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
        voices: list[Tensor] = []
        wanted = min(_VOICES, len(pool))
        # Others take the place of utterances that cannot be read.
        while len(voices) < wanted and pool:
            chosen = rng.choice(len(pool), min(wanted - len(voices), len(pool)), replace=False).tolist()
            for index in chosen:
                with suppress(AudioError):
                    voices.append(excerpt(read(pool[index].path), samples, rng))
            pool = [other for index, other in enumerate(pool) if index not in chosen]
        if not voices:
            raise ValueError("babble needs at least two utterances that can be read")
        return babble(voices)
