"""All judges of a sound together."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from spintok.evaluate.resynthesis.naturalness import Naturalness, Quality
from spintok.evaluate.resynthesis.pitch import pitch
from spintok.evaluate.resynthesis.recognizer import Recognizer
from spintok.evaluate.resynthesis.voice import VoiceEmbedder

__all__ = ["Heard", "Judges", "load_judges"]


@dataclass(frozen=True, eq=False)
class Heard:
    """What the judges say of one sound.

    Attributes:
        words: the words that the recogniser hears.
        quality: DNSMOS.
        f0: Hz each 5 ms, 0 where there is no voice, (T,) float64.
        voice: embedding of the speaker (256,), None if there is too little speech.
    """

    words: list[str]
    quality: Quality
    f0: NDArray[np.float64]
    voice: NDArray[np.float32] | None


class Judges:
    """The recogniser, DNSMOS, F0, and the embedding of speakers. Each sound is judged by itself.

    Raises:
        MissingPackageError: one of the packages is not installed.
    """

    def __init__(self) -> None:
        self._recognizer, self._naturalness, self._voices = Recognizer(), Naturalness(), VoiceEmbedder()

    def hear(self, waveform: NDArray[np.float32]) -> Heard:
        """Judge a waveform (S,) at 16 kHz, S > 0."""
        return Heard(
            self._recognizer.words(waveform), self._naturalness.quality(waveform), pitch(waveform), self.voice(waveform)
        )

    def pronunciation(self, words: Sequence[str]) -> list[str] | None:
        """The phones of words; see ``Recognizer.pronunciation``."""
        return self._recognizer.pronunciation(words)

    def voice(self, waveform: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """The embedding alone; see ``VoiceEmbedder.embed``."""
        return self._voices.embed(waveform)


@cache
def load_judges() -> Judges:
    """The judges of this process; their models load once."""
    return Judges()
