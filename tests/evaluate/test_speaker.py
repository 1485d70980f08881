"""Speakers: probes that must find them and must not, and information known in closed form."""

import numpy as np
import pytest

from spintok.evaluate.speaker import histograms, probe_speaker, speaker_information
from spintok.tokens import Tokens


def speech(bias: float, utterances: int = 60, size: int = 12) -> tuple[dict[str, Tokens], dict[str, str]]:
    """Random codes; with ``bias`` each of three speakers prefers four codes of his own."""
    rng = np.random.default_rng(0)
    tokens, speakers = {}, {}
    for number in range(utterances):
        who = number % 3
        codes = rng.integers(size, size=80)
        mine = rng.random(80) < bias
        codes[mine] = 4 * who + rng.integers(4, size=80)[mine]
        tokens[f"u{number}"], speakers[f"u{number}"] = Tokens(codes, size), f"s{who}"
    return tokens, speakers


@pytest.mark.parametrize(("bias", "low", "high"), [(0.5, 0.95, 1.0), (0.0, 0.1, 0.55)])
def test_a_probe_finds_speakers_where_they_are(bias: float, low: float, high: float) -> None:
    tokens, speakers = speech(bias)
    vectors = histograms(list(tokens.values()))
    assert np.allclose((vectors**2).sum(axis=1), 1)
    found = probe_speaker(vectors, list(speakers.values()), list(tokens)).values()
    assert low <= found["accuracy"] <= high
    assert found["chance"] == pytest.approx(1 / 3)


def test_rare_speakers_are_left_out() -> None:
    tokens, speakers = speech(0.5)
    names = [*speakers.values()]
    names[0] = "heard once"
    ratios = probe_speaker(histograms(list(tokens.values())), names, list(tokens))
    assert ratios.units == tuple(tokens)[1:]
    with pytest.raises(ValueError, match="1 of 1 speakers"):
        probe_speaker(np.ones((8, 2)), ["s"] * 8, list("abcdefgh"))


def test_information_of_speakers() -> None:
    # Four speakers, each with a code of his own: all of log2 4 bits. One token an utterance.
    tokens = {f"{who}{n}": Tokens([who], 4) for who in range(4) for n in range(50)}
    speakers = {key: key[0] for key in tokens}
    found = speaker_information(tokens, speakers)
    assert found["mutual_information"] == pytest.approx(2.0)
    assert found["speaker_entropy"] == pytest.approx(2.0)
    # (4 - 1) (4 - 1) / (2 N ln 2) bits are found where there are none (Miller 1955).
    assert found["shuffled_information"] == pytest.approx(9 / (2 * 200 * np.log(2)), rel=0.5)
    assert found["excess_share"] > 0.97
    none = speaker_information(*speech(0.0))
    assert abs(none["excess_information"]) < 0.2 * none["mutual_information"]
    one = speaker_information({"a": Tokens([0, 1], 2)}, {"a": "s"})
    assert one["mutual_information"] == one["excess_share"] == 0.0
    with pytest.raises(ValueError, match="both tokens and a speaker"):
        speaker_information({"a": Tokens([0], 2)}, {})
