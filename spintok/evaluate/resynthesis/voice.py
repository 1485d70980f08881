"""Whose voice it is: the embedding of Resemblyzer, a network that was trained to tell speakers apart.

Wan et al. 2018, "Generalized end-to-end loss for speaker verification". Embeddings have length 1 and no negative parts,
so the cosine of two is their inner product and lies from 0 to 1.
"""

import numpy as np
from numpy.typing import NDArray

from spintok.evaluate.resynthesis.packages import load
from spintok.frames import SAMPLE_RATE

__all__ = ["VoiceEmbedder"]

_SHORTEST = SAMPLE_RATE // 4
"""Samples of speech, after pauses are cut, below which there is no embedding."""


class VoiceEmbedder:
    """Embeddings of speakers, on the CPU in float32.

    Raises:
        MissingPackageError: Resemblyzer is not installed.
    """

    def __init__(self) -> None:
        module = load("resemblyzer", "speaker similarity")
        self._preprocess = module.preprocess_wav
        self._encoder = module.VoiceEncoder("cpu", verbose=False)

    def embed(self, waveform: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """The embedding (256,) of a waveform (S,) at 16 kHz; None if it has less than 0.25 s of speech."""
        if len(waveform) < _SHORTEST or not np.any(waveform):
            return None
        speech = self._preprocess(np.clip(waveform, -1, 1))
        if len(speech) < _SHORTEST:
            return None
        found: NDArray[np.float32] = self._encoder.embed_utterance(speech)
        return found
