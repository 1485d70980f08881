"""The recogniser against PocketSphinx itself, and the words of texts."""

import numpy as np
from judged import needs_judges, sample

from spintok.evaluate.resynthesis.packages import load
from spintok.evaluate.resynthesis.recognizer import Recognizer, words_of


def test_words_of_a_text() -> None:
    text = "\u201cDon\u2019t\u201d \u2013 he said, 'go to St. John's; it's 5 o'clock!'"
    assert words_of(text) == ["don't", "he", "said", "go", "to", "st", "john's", "it's", "5", "o'clock"]
    assert words_of("...") == []


@needs_judges
def test_words_are_those_of_the_library_whatever_was_heard_before() -> None:
    sphinx = load("pocketsphinx", "a test")
    recognizer = Recognizer()
    found = {name: recognizer.words(sample(name)) for name in ("eve_bus", "fred_yes", "beth_river")}
    for name in ("fred_yes", "beth_river"):
        # A decoder that has heard nothing else. PocketSphinx hears other words of this river after those of the bus.
        fresh = sphinx.Decoder(samprate=16_000, cmn="batch", loglevel="FATAL")
        fresh.start_utt()
        fresh.process_raw((sample(name) * 32767).round().astype(np.int16).tobytes(), full_utt=True)
        fresh.end_utt()
        assert " ".join(found[name]) == fresh.hyp().hypstr
    assert found["fred_yes"] == ["yes"]
    # flite's voice is clear enough for it.
    assert {"people", "waited", "in", "the", "rain", "bus"} <= set(found["eve_bus"])
    assert recognizer.words(np.zeros(0, dtype=np.float32)) == []
