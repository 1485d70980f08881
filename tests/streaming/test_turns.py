"""Turns: where speech starts and ends, whatever the cutting of the samples."""

import random
from pathlib import Path

import numpy as np
import pytest

from spintok.data.audio import read
from spintok.streaming.turns import TurnDetector, TurnSettings

pytest.importorskip("onnxruntime", reason="spintok[turns] is not installed")
pytest.importorskip("silero_vad.data", reason="spintok[turns] is not installed")

SPEECH = Path(__file__).parents[1] / "speech"
PAUSE = 1.5


def with_pauses(*names: str) -> np.ndarray:
    """Recordings with a pause of 1.5 s before each, and one at the end."""
    pause = np.zeros(int(16000 * PAUSE), np.float32)
    parts = [part for name in names for part in (pause, read(SPEECH / f"{name}.flac").numpy())]
    return np.concatenate([*parts, pause])


def test_turns_lie_where_speech_is() -> None:
    names = ["beth_river", "fred_yes", "eve_bus"]
    detector = TurnDetector()
    events = [*detector.push(with_pauses(*names)), *detector.close()]
    assert [event.kind for event in events] == ["speech_start", "speech_end"] * 3
    at = 0.0
    for name, start, end in zip(names, events[::2], events[1::2], strict=True):
        begin, seconds = at + PAUSE, len(read(SPEECH / f"{name}.flac")) / 16000
        assert begin - 0.3 < start.seconds < begin + 0.3
        assert begin + seconds - 0.6 < end.seconds <= begin + seconds + 0.2
        assert start.seconds < start.found
        assert end.found - end.seconds == pytest.approx(0.48)
        at = begin + seconds


def test_silence_and_noise_open_no_turn() -> None:
    noise = 0.02 * np.random.default_rng(0).standard_normal(48000).astype(np.float32)
    detector = TurnDetector()
    assert detector.push(np.concatenate([np.zeros(16000, np.float32), noise])) == []
    assert not detector.speaking
    assert detector.close() == []


@pytest.mark.parametrize("seed", range(3))
def test_any_cutting_and_moved_states_give_the_same_events(seed) -> None:
    samples = with_pauses("beth_river", "fred_yes")
    whole = TurnDetector()
    expected = [*whole.push(samples), *whole.close()]
    choose = random.Random(seed)
    detector, events, at = TurnDetector(), [], 0
    while at < len(samples):
        count = choose.choice([100, 511, 512, 513, 5000])
        events += detector.push(samples[at : at + count])
        at += count
        state = detector.state()
        detector = TurnDetector()
        detector.restore(state)
    assert [*events, *detector.close()] == expected


def test_a_turn_that_the_end_cuts_off_is_closed() -> None:
    samples = with_pauses("beth_river")[: (16000 * 3)]
    detector = TurnDetector()
    assert [event.kind for event in detector.push(samples)] == ["speech_start"]
    assert detector.speaking
    (end,) = detector.close()
    assert end.kind == "speech_end"
    assert end.seconds <= 3.0


def test_speech_that_goes_on_after_a_close_opens_the_next_turn() -> None:
    samples = with_pauses("anna_tokens")
    detector = TurnDetector()
    middle = 16000 * 3
    (start,) = detector.push(samples[:middle])
    (end,) = detector.close()
    again, last = [*detector.push(samples[middle:]), *detector.close()]
    assert [start.kind, end.kind, again.kind, last.kind] == ["speech_start", "speech_end"] * 2
    # The turns do not overlap, and the second is not dated back into the first.
    assert start.seconds < end.seconds <= again.seconds < last.seconds


def test_settings_decide_when_turns_open_and_close() -> None:
    samples = with_pauses("beth_river", "eve_bus")
    patient = TurnDetector(TurnSettings(min_silence=2.5))
    events = [*patient.push(samples), *patient.close()]
    assert [event.kind for event in events] == ["speech_start", "speech_end"]
    late = TurnDetector(TurnSettings(pre_roll=0.0)).push(samples)[0]
    assert late.seconds == pytest.approx(TurnDetector().push(samples)[0].seconds + 0.2)
    with pytest.raises(ValueError, match="release <= threshold"):
        TurnSettings(threshold=0.3, release=0.5)
    with pytest.raises(ValueError, match="min_silence"):
        TurnSettings(min_silence=-1)


@pytest.mark.parametrize("damage", [{}, {"windows": -1}, {"context": [0.0]}, {"memory": "x"}, {"since": 10**9}])
def test_what_is_no_state_is_refused(damage) -> None:
    detector = TurnDetector()
    state = detector.state() | damage if damage else {"speaking": True}
    with pytest.raises(ValueError, match="not a state"):
        detector.restore(state)
