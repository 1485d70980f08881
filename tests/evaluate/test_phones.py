"""Phone metrics of weighted utterances."""

import numpy as np
import pytest

from spintok.data.alignments import Interval
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
