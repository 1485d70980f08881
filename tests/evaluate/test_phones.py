"""Phones and codes: scikit-learn and mir_eval as judges, hand-worked boundaries, any K, nothing at all."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spintok.data.alignments import Interval
from spintok.evaluate.phones import Boundaries, LabelCounts, PhoneScore, boundary_counts, match_boundaries
from spintok.frames import frame_center_seconds
from spintok.tokens import Tokens

LABELS = ("SIL", "a", "b")
SPEECH = st.lists(st.tuples(st.sampled_from(LABELS), st.integers(0, 4)), min_size=1, max_size=50)


def intervals_of(labels: list[str]) -> list[Interval]:
    """An interval a frame, around its centre."""
    centers = [frame_center_seconds(i) for i in range(len(labels))]
    return [Interval(label, c - 0.01, c + 0.01) for label, c in zip(labels, centers, strict=True)]


def counts_of(speech: list[tuple[str, int]], size: int = 5) -> LabelCounts:
    labels, codes = [label for label, _ in speech], [code for _, code in speech]
    return LabelCounts.of(Tokens(codes, size), intervals_of(labels))


@given(SPEECH)
@settings(max_examples=50, deadline=None)
def test_figures_against_scikit_learn(speech: list[tuple[str, int]]) -> None:
    from sklearn.metrics import homogeneity_score, mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    labels, codes = zip(*speech, strict=True)
    table = contingency_matrix(labels, codes)
    found = counts_of(speech).figures()
    assert found["label_purity"] == pytest.approx(table.max(axis=0).sum() / table.sum())
    assert found["cluster_purity"] == pytest.approx(table.max(axis=1).sum() / table.sum())
    assert found["mutual_information"] == pytest.approx(mutual_info_score(labels, codes) / math.log(2), abs=1e-9)
    if len(set(labels)) > 1:
        expected = homogeneity_score(labels, codes)
        assert found["normalized_mutual_information"] == pytest.approx(expected, abs=1e-9)
    assert found["labelled_share"] == 1.0


@given(SPEECH, SPEECH)
@settings(max_examples=30, deadline=None)
def test_parts_add_up(first: list, second: list) -> None:
    whole = counts_of(first) + counts_of(second)
    assert whole == LabelCounts.summed([counts_of(second), counts_of(first)], 5)
    assert whole.figures() == counts_of(first + second).figures()
    assert LabelCounts.empty(5) + whole == whole


def test_many_codewords() -> None:
    speech = [("a", 8191), ("a", 8191), ("b", 5000), ("b", 4097)]
    found = counts_of(speech, 8192).figures()
    assert found["normalized_mutual_information"] == pytest.approx(1.0)
    assert (found["label_purity"], found["cluster_purity"]) == (1.0, 0.75)


def test_degenerate_speech_has_defined_figures() -> None:
    one_code = counts_of([("a", 3), ("b", 3), ("b", 3)]).figures()
    assert one_code["normalized_mutual_information"] == 0.0
    assert one_code["label_purity"] == pytest.approx(2 / 3)
    assert one_code["cluster_purity"] == 1.0
    one_label = counts_of([("a", 1), ("a", 2)]).figures()
    assert one_label["normalized_mutual_information"] == 0.0
    nothing = LabelCounts.of(Tokens([], 5), []).figures()
    assert set(nothing.values()) == {0.0}


def test_labels_shorter_and_longer_than_the_codes() -> None:
    short = LabelCounts.of(Tokens([0, 0, 1, 1], 2), [Interval("a", 0.0, 0.04)])
    assert short.pairs.total == 2
    assert short.figures()["labelled_share"] == 0.5
    long = LabelCounts.of(
        Tokens([0, 1], 2), [Interval("a", 0.0, 0.02), Interval("b", 0.02, 9.0), Interval("c", 9.0, 10.0)]
    )
    assert long.pairs.total == 2
    assert long.figures()["label_entropy"] == pytest.approx(1.0)


def test_silence_and_the_table() -> None:
    counts = counts_of([("SIL", 0), ("SIL", 0), ("a", 0), ("a", 1), ("b", 1), ("never heard of", 2)])
    assert counts.codes_of({"SIL"}) == [0]
    assert counts.without({"SIL"}).pairs.total == 4
    table = counts.table()
    assert table["codes"]["0"] == pytest.approx({"SIL": 2 / 3, "a": 1 / 3})
    assert table["codes"]["2"] == {"never heard of": 1.0}


@given(
    st.lists(st.floats(0, 1), max_size=30, unique=True),
    st.lists(st.floats(0, 1), max_size=30, unique=True),
)
@settings(max_examples=100, deadline=None)
def test_matching_against_mir_eval(hypothesized: list[float], reference: list[float]) -> None:
    mir_eval_util = pytest.importorskip("mir_eval.util")
    mine, theirs = np.sort(np.round(hypothesized, 4)), np.sort(np.round(reference, 4))
    expected = len(mir_eval_util.match_events(theirs, mine, 0.05 + 1e-6)) if mine.size and theirs.size else 0
    assert match_boundaries(mine, theirs, 0.05) == expected


def test_boundaries_by_hand() -> None:
    # Runs end between frames 1 and 2 (0.0425 s) and 4 and 5 (0.1025 s); phones at 0.03, 0.09, 0.16 s.
    tokens = Tokens([0, 0, 1, 1, 1, 2, 2, 2, 2, 2], 3)
    phones = [Interval("a", 0.0, 0.03), Interval("b", 0.03, 0.09), Interval("c", 0.09, 0.16), Interval("d", 0.16, 0.3)]
    found = boundary_counts(tokens, phones)
    assert found == Boundaries(2, 2, 3)
    figures = found.figures()
    assert figures["precision"] == 1.0
    assert figures["recall"] == pytest.approx(2 / 3)
    assert figures["f1"] == pytest.approx(0.8)
    # HR = 2/3, OS = 2/3 - 1 = -1/3: r1 = sqrt(1/9 + 1/9), r2 = (-(-1/3) + 2/3 - 1) / sqrt 2 = 0.
    assert figures["r_value"] == pytest.approx(1 - math.sqrt(2) / 3 / 2)
    assert boundary_counts(tokens, phones, tolerance=0.01).matched == 0
    # One boundary cannot be matched twice.
    assert match_boundaries([0.10], [0.09, 0.11]) == 1
    assert Boundaries(3, 3, 3).figures() == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "r_value": 1.0}
    # Twice as many boundaries as there are find all of them, which F1 likes better than the R-value.
    assert Boundaries(4, 8, 4).figures()["r_value"] == pytest.approx(1 - (1 + 1 / math.sqrt(2)) / 2)
    assert set(Boundaries().figures().values()) == {0.0}
    assert boundary_counts(Tokens([], 3), phones) == Boundaries(0, 0, 0)
    assert boundary_counts(tokens, []) == Boundaries(0, 2, 0)


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
    assert score.figures(np.array([1.0, 0.0, 2.0])) == pytest.approx(repeated.figures())
    figures = score.figures()
    assert figures["pnmi"] == pytest.approx(score.counts.figures()["normalized_mutual_information"])
    assert figures["pnmi_speech"] != figures["pnmi"]
    assert "cnmi" in PhoneScore(tokens, phones, "character", None).figures()
    with pytest.raises(ValueError, match="no utterance has both"):
        PhoneScore(tokens, {})
