import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spintok import Tokens
from spintok.tokens import deduplicate, expand

sequences = st.lists(st.integers(0, 4), max_size=60)


@given(sequences)
def test_runs_are_those_of_groupby_and_expand_back(codes: list[int]) -> None:
    units, durations = deduplicate(np.array(codes, dtype=np.int64))
    assert [(k, len(list(g))) for k, g in itertools.groupby(codes)] == list(zip(units, durations, strict=True))
    assert expand(units, durations).tolist() == codes


@given(sequences)
def test_tokens_keep_codes_and_books(codes: list[int]) -> None:
    tokens = Tokens(np.array(codes, dtype=np.int32), 5)
    assert tokens.codes.tolist() == codes
    assert tokens.durations.sum() == tokens.num_frames == len(codes)
    assert tokens == Tokens.from_runs(tokens.units, tokens.durations, 5)
    assert tokens.seconds == len(codes) * 0.02
    assert tokens.times.shape == (tokens.units.size, 2)
    if codes:
        assert tokens.times[0, 0] == 0
        assert tokens.times[-1, 1] == pytest.approx(tokens.seconds)


def test_runs_that_are_not_maximal_are_joined() -> None:
    tokens = Tokens.from_runs([1, 1, 2], [2, 3, 1], 3)
    assert tokens.units.tolist() == [1, 2]
    assert tokens.durations.tolist() == [5, 1]


def test_tokens_do_not_share_memory_with_the_caller() -> None:
    codes = np.array([1, 1, 2], dtype=np.int32)
    tokens = Tokens(codes, 3)
    codes[0] = 0
    assert tokens.codes.tolist() == [1, 1, 2]
    with pytest.raises(ValueError, match="read-only"):
        tokens.codes[0] = 0


@pytest.mark.parametrize(
    ("codes", "size", "message"),
    [
        ([0, 3], 3, "another codebook"),
        ([-1, 0], 3, "another codebook"),
        ([0.5], 3, "integers"),
        ([[0]], 3, "1-D sequence"),
        ([2**40], 3, "32 bits"),
        ([0], 0, "codebook_size"),
    ],
)
def test_bad_codes_are_refused(codes: list, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tokens(np.array(codes), size)


def test_bad_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 frame"):
        expand([1, 2], [1, 0])
    with pytest.raises(ValueError, match="the same length"):
        expand([1, 2], [1])
