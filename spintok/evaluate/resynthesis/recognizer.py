"""Words that a recogniser hears: PocketSphinx with the US English models that its wheel contains.

It is a weak recogniser, but the same for every sound, offline and deterministic.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spintok.evaluate.resynthesis.packages import load
from spintok.frames import SAMPLE_RATE

__all__ = ["Recognizer", "words_of"]

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def words_of(text: str) -> list[str]:
    """The words of a text as a recogniser writes them: lower case, no punctuation except apostrophes within words."""
    return _WORD.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


class Recognizer:
    """Large-vocabulary recognition of whole utterances. What it hears does not depend on the utterances before.

    Raises:
        MissingPackageError: pocketsphinx is not installed.
    """

    def __init__(self) -> None:
        # "batch" normalises the cepstra of each utterance by itself; the default, "live", goes on from the last one.
        decoder = load("pocketsphinx", "speech recognition").Decoder
        self._decoder = decoder(samprate=SAMPLE_RATE, cmn="batch", loglevel="FATAL")

    def words(self, waveform: NDArray[np.float32]) -> list[str]:
        """The words of a waveform (S,) at 16 kHz with samples in [-1, 1]; samples beyond are clipped."""
        if not len(waveform):
            return []
        samples = np.rint(np.clip(waveform, -1, 1) * 32767).astype("<i2")
        # Without it the front end and the normalisation remember something of the utterance before.
        self._decoder.reinit_feat()
        self._decoder.start_utt()
        self._decoder.process_raw(samples.tobytes(), full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return [] if found is None else words_of(found.hypstr)

    def pronunciation(self, words: Sequence[str]) -> list[str] | None:
        """The phones of words, in ARPAbet without stress, each as its dictionary says first; None if it lacks one."""
        found = [self._decoder.lookup_word(word) for word in words]
        if any(phones is None for phones in found):
            return None
        return " ".join(found).split()
