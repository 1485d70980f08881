"""Boundaries against mir_eval, and worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spintok.data.labels.alignments import Interval
from spintok.evaluate.boundaries import Boundaries, boundary_counts, match_boundaries
from spintok.tokens import Tokens


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
    metrics = found.metrics()
    assert metrics["precision"] == 1.0
    assert metrics["recall"] == pytest.approx(2 / 3)
    assert metrics["f1"] == pytest.approx(0.8)
    # HR = 2/3, OS = 2/3 - 1 = -1/3: r1 = sqrt(1/9 + 1/9), r2 = (-(-1/3) + 2/3 - 1) / sqrt 2 = 0.
    assert metrics["r_value"] == pytest.approx(1 - math.sqrt(2) / 3 / 2)
    assert boundary_counts(tokens, phones, tolerance=0.01).matched == 0
    # One boundary cannot be matched twice.
    assert match_boundaries([0.10], [0.09, 0.11]) == 1
    assert Boundaries(3, 3, 3).metrics() == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "r_value": 1.0}
    # Twice as many boundaries as there are find all of them, which F1 likes better than the R-value.
    assert Boundaries(4, 8, 4).metrics()["r_value"] == pytest.approx(1 - (1 + 1 / math.sqrt(2)) / 2)
    assert set(Boundaries().metrics().values()) == {0.0}
    assert boundary_counts(Tokens([], 3), phones) == Boundaries(0, 0, 0)
    assert boundary_counts(tokens, []) == Boundaries(0, 2, 0)
