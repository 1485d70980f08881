"""Phone metrics of weighted utterances."""

import numpy as np
import pytest

from spintok.data.labels.alignments import Interval
from spintok.evaluate.bootstrap import jackknife
from spintok.evaluate.phones import PhoneScore
from spintok.frames import frame_center_seconds
from spintok.tokens import Tokens

LABELS = ("SIL", "a", "b")


def intervals_of(labels: list[str]) -> list[Interval]:
    """One interval per frame, around its centre."""
    centers = [frame_center_seconds(i) for i in range(len(labels))]
    return [Interval(label, c - 0.01, c + 0.01) for label, c in zip(labels, centers, strict=True)]


def test_score_of_weighted_utterances_is_that_of_repeated_ones() -> None:
    rng = np.random.default_rng(0)
    tokens, phones = {}, {}
    for key in "xyz":
        labels = rng.choice(LABELS, 30).tolist()
        codes = [LABELS.index(label) if rng.random() < 0.7 else 4 for label in labels]
        tokens[key], phones[key] = Tokens(codes, 5), intervals_of(labels)
    score = PhoneScore(tokens | {"unaligned": Tokens([1], 5)}, phones)
    assert score.units == ("x", "y", "z")
    repeated = PhoneScore(
        {"x": tokens["x"], "z1": tokens["z"], "z2": tokens["z"]},
        {"x": phones["x"], "z1": phones["z"], "z2": phones["z"]},
    )
    assert score.values(np.array([1.0, 0.0, 2.0])) == pytest.approx(repeated.values())
    values = score.values()
    assert values["pnmi"] == pytest.approx(score.counts.metrics()["normalized_mutual_information"])
    assert values["pnmi_speech"] != values["pnmi"]
    assert "cnmi" in PhoneScore(tokens, phones, "character", None).values()
    with pytest.raises(ValueError, match="no utterance has both"):
        PhoneScore(tokens, {})


def test_the_jackknife_removes_most_of_the_bias_of_pnmi() -> None:
    """Ten phones, 200 codes of which five belong to each phone in half of the frames, runs of three frames."""
    rng = np.random.default_rng(1)
    phones_, codes_ = 10, 200
    joint = np.full((phones_, codes_), 0.5 / codes_)
    for phone in range(phones_):
        joint[phone, 5 * phone : 5 * phone + 5] += 0.5 / 5
    joint /= joint.sum()
    share, of_code = joint.sum(axis=1), joint.sum(axis=0)
    information = float((joint * np.log2(joint / np.outer(share, of_code))).sum())
    truth = information / float(-(share * np.log2(share)).sum())
    plain, corrected = [], []
    for _ in range(2):
        tokens, intervals = {}, {}
        for key in map(str, range(150)):
            drawn = rng.choice(joint.size, 40, p=joint.ravel())
            labels = np.repeat(drawn // codes_, 3)
            tokens[key] = Tokens(np.repeat(drawn % codes_, 3), codes_)
            intervals[key] = intervals_of([str(label) for label in labels])
        score = PhoneScore(tokens, intervals, tolerance=None)
        plain.append(score.values()["pnmi"])
        corrected.append(jackknife(score, score.frames)["pnmi"])
    bias, left = np.mean(plain) - truth, np.mean(corrected) - truth
    assert bias > 0.04
    assert abs(left) < bias / 3


def test_pnmi_of_two_labels_a_frame() -> None:
    """Frame i is at 0.0125 + 0.02 i; its two labels are at 0.005 + 0.02 i and 0.015 + 0.02 i."""
    tokens = {"u": Tokens([0, 0, 1, 1], 2)}
    phones = {"u": [Interval("a", 0.0, 0.05), Interval("b", 0.05, 0.08)]}
    found = PhoneScore(tokens, phones).values()
    # Centres at 0.0125, 0.0325, 0.0525 and 0.0725 s agree with the codes.
    assert found["pnmi"] == found["phone_purity"] == 1.0
    # Labels at 0.005, ..., 0.045 are a and at 0.055, 0.065, 0.075 b: one of code 1 is a.
    assert found["phone_purity_10ms"] == found["phone_cluster_purity_10ms"] == 7 / 8
    a, b = 5 / 8, 3 / 8
    entropy = -a * np.log2(a) - b * np.log2(b)
    remaining = 0.5 * -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    assert found["pnmi_10ms"] == pytest.approx((entropy - remaining) / entropy)


def test_recall_by_class_of_phones() -> None:
    # Code 0 is mostly IY. Code 1 is as often K as T, and K comes first.
    labels = ["IY", "IY", "AE", "T", "T", "T", "K", "K", "SIL"]
    tokens = {"u": Tokens([0, 0, 0, 1, 1, 0, 1, 1, 2], 3)}
    score = PhoneScore(tokens, {"u": intervals_of(labels)})
    found = score.values()
    assert {name: value for name, value in found.items() if name.startswith("phone_recall")} == {
        "phone_recall_vowels": 2 / 3,
        "phone_recall_stops": 2 / 5,
    }
    assert score.values(np.array([0.0]))["phone_recall_stops"] == 0
    assert score.counts.recalled()["K"] == (2, 2)
