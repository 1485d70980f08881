"""Dialogues from turns: what is said where, checked against the turns themselves."""

import json

import numpy as np
import pytest

from spintok.augment.random import utterance_rng
from spintok.corpus.token_formats import Record
from spintok.export import (
    ExportError,
    IndexedDataset,
    Script,
    Spoken,
    TurnTaking,
    Vocabulary,
    Word,
    full_duplex,
    read_dialogues,
    take_turns,
)
from spintok.tokens import Tokens
from tests.export.token_folders import write_folder

K = 400
RATE = 50


def _tokens(first: int, frames: int) -> Tokens:
    """Codes first, first + 1, ..., so that each frame says which one it is."""
    return Tokens(np.arange(first, first + frames, dtype=np.int32), K)


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


USER, ASSISTANT, ANSWER = _tokens(1, 60), _tokens(100, 150), _tokens(300, 80)
WORDS = [Word("one", 0.0, 0.4), Word("two", 1.0, 1.5), Word("three", 2.5, 2.9)]
MHM = _tokens(390, 9)


def _heard(made, channel: int) -> list[int]:
    """The codes of a channel without its silence."""
    return made.channels[channel].codes[~made.silent[channel]].tolist()


def _bounds(silent: np.ndarray) -> list[tuple[int, int]]:
    """Where speech starts and ends on a channel."""
    steps = np.flatnonzero(np.diff(silent.astype(int), prepend=1, append=1))
    return list(zip(steps[::2].tolist(), steps[1::2].tolist(), strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_turns_follow_each_other_after_gaps(seed: int) -> None:
    turns = [Spoken("user", USER), Spoken("assistant", ASSISTANT, WORDS), Spoken("assistant", ANSWER, [WORDS[0]])]
    made = take_turns(turns, _rng(seed), TurnTaking(gap=(0.1, 0.5)), [MHM])
    assert _heard(made, 0) == USER.codes.tolist()
    assert _heard(made, 1) == [*ASSISTANT.codes, *ANSWER.codes]
    (said,), (first, second) = _bounds(made.silent[0]), _bounds(made.silent[1])
    assert said[0] == 0
    assert all(5 <= gap <= 25 for gap in (first[0] - said[1], second[0] - first[1]))
    assert second[1] == len(made.silent[0]) == len(made.silent[1]) == made.channels[0].num_frames
    starts = [first[0] / RATE + word.start for word in WORDS] + [second[0] / RATE]
    assert [word.start for word in made.words] == pytest.approx(starts)
    assert [word.text for word in made.words] == ["one", "two", "three", "one"]


@pytest.mark.parametrize("seed", range(20))
def test_a_barge_in_stops_the_assistant(seed: int) -> None:
    turns = [Spoken("assistant", ASSISTANT, WORDS), Spoken("user", USER), Spoken("assistant", ANSWER)]
    made = take_turns(turns, _rng(seed), TurnTaking(barge_in=1, back_channel=1, reaction=(0.2, 0.4)), [MHM])
    ((begun, ended),) = _bounds(made.silent[0])
    (first, second) = _bounds(made.silent[1])
    assert 37 <= begun <= 135
    assert 10 <= first[1] - begun <= 20 or first[1] == 150
    assert _heard(made, 1)[: first[1]] == ASSISTANT.codes[: first[1]].tolist()
    # No back-channel beside an interruption, and the answer, of less than 2 s, gets none.
    assert _heard(made, 0) == USER.codes.tolist()
    assert second[0] >= max(ended, first[1]) + 10
    assert [word.text for word in made.words] == [word.text for word in WORDS if word.start < first[1] / RATE]
    assert all(word.end <= first[1] / RATE for word in made.words)


def test_an_interrupted_assistant_that_goes_on_for_longer_than_the_user_is_not_talked_over() -> None:
    turns = [Spoken("assistant", ASSISTANT), Spoken("user", _tokens(1, 2)), Spoken("assistant", ANSWER)]
    for seed in range(20):
        made = take_turns(turns, _rng(seed), TurnTaking(barge_in=1, reaction=(0.5, 1), gap=(0, 0)))
        assert _heard(made, 1)[-80:] == ANSWER.codes.tolist()
        kept = len(_heard(made, 1)) - 80
        assert _heard(made, 1)[:kept] == ASSISTANT.codes[:kept].tolist()


def test_a_back_channel_lets_the_assistant_go_on() -> None:
    places = set()
    for seed in range(20):
        turns = [Spoken("assistant", ASSISTANT), Spoken("user", USER)]
        made = take_turns(turns, _rng(seed), TurnTaking(back_channel=1), [MHM])
        assert _heard(made, 1) == ASSISTANT.codes.tolist()
        (said, _) = _bounds(made.silent[0])
        assert _heard(made, 0) == [*MHM.codes, *USER.codes]
        assert 0 <= said[0] < said[1] <= 150
        places.add(said[0])
    assert len(places) > 10
    assert 0 < sum(
        len(_heard(take_turns([Spoken("assistant", ASSISTANT)], _rng(s), TurnTaking(back_channel=0.5), [MHM]), 0)) > 0
        for s in range(30)
    ) < 30  # fmt: skip


def test_what_cannot_be_placed() -> None:
    with pytest.raises(ExportError, match="needs turns"):
        take_turns([], _rng(0), TurnTaking())
    with pytest.raises(ExportError, match="each of them tokens"):
        take_turns([Spoken("user", _tokens(0, 0))], _rng(0), TurnTaking())
    with pytest.raises(ExportError, match="back-channels need utterances"):
        take_turns([Spoken("user", USER)], _rng(0), TurnTaking(back_channel=0.1))
    with pytest.raises(ExportError, match="barge_in is a probability"):
        TurnTaking(barge_in=1.5)
    with pytest.raises(ExportError, match="gap is a range of seconds"):
        TurnTaking(gap=(0.5, 0.1))


def test_dialogues_of_turns_from_the_command_line(run, tmp_path) -> None:
    utterances = {"u": USER, "a": ASSISTANT, "b": ANSWER, "m": MHM}
    folder = write_folder(
        tmp_path / "tokens", [Record(key, f"/{key}", {"primary": one}, None) for key, one in utterances.items()]
    )
    line = {"id": "call", "turns": [["user", "u"], ["assistant", "a"], ["user", "u"]], "back_channels": ["m"]}
    (tmp_path / "calls.jsonl").write_text(json.dumps(line))
    assert read_dialogues(tmp_path / "calls.jsonl") == [
        Script("call", (("user", "u"), ("assistant", "a"), ("user", "u")), ("m",))
    ]
    options = ("--dialogues", tmp_path / "calls.jsonl", "--seed", 7, "--gap", 0.3, 0.4, "--reaction", 0.1, 0.2)
    shares = ("--barge-in", 0.5, "--back-channel", 0.5)
    code, out, err = run(folder, tmp_path / "out", "--to", "dialogue", *options, *shares)
    assert (code, err) == (0, "")
    assert "dialogue, 1 utterances" in out
    turns = [Spoken("user", USER), Spoken("assistant", ASSISTANT), Spoken("user", USER)]
    manner = TurnTaking(gap=(0.3, 0.4), reaction=(0.1, 0.2), barge_in=0.5, back_channel=0.5)
    made = take_turns(turns, utterance_rng(7, 0, "call"), manner, [MHM])
    expected = full_duplex(made.channels, Vocabulary.load(tmp_path / "out"), silent=made.silent)
    assert IndexedDataset(tmp_path / "out/tokens")[0].tolist() == expected.ids.tolist()
    for record, message in (
        ({"id": "x", "turns": []}, "calls.jsonl:1: expected an id, turns"),
        ({"id": "x", "turns": [["boss", "u"]]}, "a turn is of the user or the assistant, not of 'boss'"),
        ({"id": "x", "turns": [["user", "u"]], "back_channels": "m"}, "back_channels as [KEY, ...]"),
        ({"id": "x", "turns": [["user", "z"]]}, "dialogue 'x': the token folders have no tokens of 'z'"),
        ({"id": "x", "turns": [["user", "u"]]}, "dialogue 'x': back-channels need utterances"),
    ):
        (tmp_path / "calls.jsonl").write_text(json.dumps(record))
        code, _, err = run(folder, tmp_path / "bad", "--to", "dialogue", *options, *shares)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
