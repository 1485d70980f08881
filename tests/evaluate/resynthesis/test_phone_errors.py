"""Errors by phone: alignments worked out by hand, and pronunciations of the recogniser's dictionary."""

import json
from pathlib import Path

import numpy as np
import pytest
from judged import needs_judges

from spintok.data.labels.alignments import PHONE_CLASSES
from spintok.evaluate.resynthesis.phone_errors import PhoneErrors, aligned
from spintok.evaluate.resynthesis.recognizer import Recognizer
from spintok.evaluate.robustness import edit_distance

PHONES = sorted(phone for members in PHONE_CLASSES.values() for phone in members)


def test_an_alignment_by_hand() -> None:
    # "past the" heard as "best".
    found = aligned(["P", "AE", "S", "T", "DH", "AH"], ["B", "EH", "S", "T"])
    assert found == [("P", "B"), ("AE", "EH"), ("S", "S"), ("T", "T"), ("DH", ""), ("AH", "")]
    assert aligned(["AY"], ["HH", "AY"]) == [("", "HH"), ("AY", "AY")]
    assert aligned([], ["S"]) == [("", "S")]
    assert aligned([], []) == []


def test_counts_by_hand() -> None:
    first = PhoneErrors.of(["P", "AE", "S", "T", "DH", "AH"], ["B", "EH", "S", "T"])
    second = PhoneErrors.of(["P", "AE", "T"], ["B", "AE", "T", "S"])
    both = PhoneErrors.summed([first, second])
    assert (first.edits, second.edits, both.edits) == (4, 2, 6)
    # An insertion belongs to no phone of the text.
    assert both.counts() == (5, 9)
    assert both.counts(PHONE_CLASSES["stops"]) == (2, 4)
    assert both.counts(PHONE_CLASSES["nasals"]) == (0, 0)
    table = both.table()
    assert table["P"] == {"count": 2, "wrong": 2, "heard_as": {"B": 2}}
    assert table["AE"] == {"count": 2, "wrong": 1, "heard_as": {"EH": 1}}
    assert table["DH"] == {"count": 1, "wrong": 1, "heard_as": {"": 1}}
    assert table["T"] == {"count": 2, "wrong": 0, "heard_as": {}}
    assert table[""] == {"count": 1, "wrong": 1, "heard_as": {"S": 1}}
    assert json.loads(json.dumps(table)) == table
    assert PhoneErrors.summed([]).counts() == (0, 0)


@pytest.mark.parametrize("seed", range(20))
def test_both_sides_are_in_the_alignment_and_it_is_the_shortest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, heard = (rng.choice(PHONES[:6], size).tolist() for size in rng.integers(0, 15, 2))
    found = aligned(reference, heard)
    assert [mine for mine, _ in found if mine] == reference
    assert [other for _, other in found if other] == heard
    errors = PhoneErrors.of(reference, heard)
    assert errors.edits == edit_distance(reference, heard)
    by_class = [errors.counts(members) for members in PHONE_CLASSES.values()]
    assert tuple(np.sum(by_class, axis=0)) == errors.counts()


@needs_judges
def test_pronunciations_are_those_of_the_dictionary() -> None:
    recognizer = Recognizer()
    assert recognizer.pronunciation(["the", "don't"]) == ["DH", "AH", "D", "OW", "N", "T"]
    assert recognizer.pronunciation([]) == []
    assert recognizer.pronunciation(["the", "spintok"]) is None
    # Every phone of the dictionary has one class.
    import pocketsphinx

    dictionary = Path(pocketsphinx.get_model_path(), "en-us", "cmudict-en-us.dict").read_text(encoding="utf-8")
    assert sorted({phone for line in dictionary.splitlines() for phone in line.split()[1:]}) == PHONES
