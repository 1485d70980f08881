"""Embeddings of speakers against Resemblyzer itself."""

import warnings

import numpy as np
from judged import needs_judges, sample

from spintok.evaluate.resynthesis.packages import load
from spintok.evaluate.resynthesis.voice import VoiceEmbedder

pytestmark = needs_judges


def test_embeddings_are_those_of_the_library() -> None:
    library = load("resemblyzer", "a test")
    voices = VoiceEmbedder()
    beth = sample("beth_river")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = library.VoiceEncoder("cpu", verbose=False).embed_utterance(library.preprocess_wav(beth, 16_000))
    found = voices.embed(beth)
    assert found is not None
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # Halves of one recording are one voice. flite's voice is another than espeak-ng's, which resemble each other.
    eve = sample("eve_bus")
    halves = [voices.embed(part) for part in np.array_split(eve, 2)]
    assert float(halves[0] @ halves[1]) > float(voices.embed(eve) @ found) + 0.1


def test_without_speech_there_is_no_embedding() -> None:
    voices = VoiceEmbedder()
    assert voices.embed(np.zeros(32_000, dtype=np.float32)) is None
    assert voices.embed(sample("fred_yes")[:1000]) is None
