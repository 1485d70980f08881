"""Counts of labels and codes against scikit-learn, for any number of codewords and for degenerate input."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spintok.data.labels.alignments import Interval
from spintok.frames import frame_center_seconds
from spintok.stats.label_counts import LabelCounts
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
def test_metrics_against_scikit_learn(speech: list[tuple[str, int]]) -> None:
    from sklearn.metrics import homogeneity_score, mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    labels, codes = zip(*speech, strict=True)
    table = contingency_matrix(labels, codes)
    found = counts_of(speech).metrics()
    assert found["label_purity"] == pytest.approx(table.max(axis=0).sum() / table.sum())
    assert found["cluster_purity"] == pytest.approx(table.max(axis=1).sum() / table.sum())
    assert found["mutual_information"] == pytest.approx(mutual_info_score(labels, codes) / math.log(2), abs=1e-9)
    if len(set(labels)) > 1:
        expected = homogeneity_score(labels, codes)
        assert found["normalized_mutual_information"] == pytest.approx(expected, abs=1e-9)
    assert found["labelled_share"] == 1.0


@given(SPEECH)
@settings(max_examples=50, deadline=None)
def test_frames_recalled_by_label(speech: list[tuple[str, int]]) -> None:
    main = {}
    for code in {code for _, code in speech}:
        mine = [label for label, one in speech if one == code]
        # The first of the most common ones; LABELS is sorted.
        main[code] = max(LABELS, key=mine.count)
    counts = counts_of(speech)
    found = counts.recalled()
    for label in LABELS:
        mine = [code for one, code in speech if one == label]
        assert found.get(label, (0, 0)) == (sum(main[code] == label for code in mine), len(mine))
    right = sum(right for right, _ in found.values())
    assert right / len(speech) == pytest.approx(counts.metrics()["label_purity"])


@given(SPEECH, SPEECH)
@settings(max_examples=30, deadline=None)
def test_parts_add_up(first: list, second: list) -> None:
    whole = counts_of(first) + counts_of(second)
    assert whole == LabelCounts.summed([counts_of(second), counts_of(first)], 5)
    assert whole.metrics() == counts_of(first + second).metrics()
    assert LabelCounts.empty(5) + whole == whole


def test_many_codewords() -> None:
    speech = [("a", 8191), ("a", 8191), ("b", 5000), ("b", 4097)]
    found = counts_of(speech, 8192).metrics()
    assert found["normalized_mutual_information"] == pytest.approx(1.0)
    assert (found["label_purity"], found["cluster_purity"]) == (1.0, 0.75)


def test_degenerate_speech_has_defined_metrics() -> None:
    one_code = counts_of([("a", 3), ("b", 3), ("b", 3)]).metrics()
    assert one_code["normalized_mutual_information"] == 0.0
    assert one_code["label_purity"] == pytest.approx(2 / 3)
    assert one_code["cluster_purity"] == 1.0
    one_label = counts_of([("a", 1), ("a", 2)]).metrics()
    assert one_label["normalized_mutual_information"] == 0.0
    nothing = LabelCounts.of(Tokens([], 5), []).metrics()
    assert set(nothing.values()) == {0.0}


def test_labels_shorter_and_longer_than_the_codes() -> None:
    short = LabelCounts.of(Tokens([0, 0, 1, 1], 2), [Interval("a", 0.0, 0.04)])
    assert short.joint.total == 2
    assert short.metrics()["labelled_share"] == 0.5
    long = LabelCounts.of(
        Tokens([0, 1], 2), [Interval("a", 0.0, 0.02), Interval("b", 0.02, 9.0), Interval("c", 9.0, 10.0)]
    )
    assert long.joint.total == 2
    assert long.metrics()["label_entropy"] == pytest.approx(1.0)


def test_silence_and_the_table() -> None:
    counts = counts_of([("SIL", 0), ("SIL", 0), ("a", 0), ("a", 1), ("b", 1), ("never heard of", 2)])
    assert counts.codes_of({"SIL"}) == [0]
    assert counts.without({"SIL"}).joint.total == 4
    table = counts.table()
    assert table["codes"]["0"] == pytest.approx({"SIL": 2 / 3, "a": 1 / 3})
    assert table["codes"]["2"] == {"never heard of": 1.0}
