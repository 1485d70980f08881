"""n-grams that sum to one and agree with a model by hand; entropies that are known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spintok.evaluate.ngram import NgramModel
from spintok.evaluate.predictability import bpe_compression, predictability
from spintok.tokens import Tokens

SEQUENCES = st.lists(st.lists(st.integers(0, 4), max_size=12), max_size=6)


@given(SEQUENCES, st.integers(1, 4), st.lists(st.integers(0, 4), max_size=5))
@settings(max_examples=60, deadline=None)
def test_probabilities_sum_to_one(sequences: list[list[int]], order: int, context: list[int]) -> None:
    model = NgramModel(sequences, order, 5)
    found = [model.probability(code, context) for code in range(5)]
    assert min(found) > 0 or not sequences
    assert math.fsum(found) == pytest.approx(1.0, abs=1e-12)


def test_bigrams_by_hand() -> None:
    # Bigrams (^ is the start): ^0 x2, 01 x2, 10, 12: n1 = 2, n2 = 2, so D = 2 / (2 + 4) = 1/3.
    # Continuations: 0 after ^ and 1 (2), 1 after 0 (1), 2 after 1 (1): n1 = 2, n2 = 1, so D' = 2 / (2 + 2) = 1/2.
    model = NgramModel([[0, 1, 0], [0, 1, 2]], 2, 3)
    unigram = {code: (count - 0.5 + 0.5 * 3 / 3) / 4 for code, count in {0: 2, 1: 1, 2: 1}.items()}
    assert model.probability(0, [1]) == pytest.approx((1 - 1 / 3 + 2 / 3 * unigram[0]) / 2)
    assert model.probability(1, [1]) == pytest.approx((2 / 3 * unigram[1]) / 2)
    assert model.probability(1, [0]) == pytest.approx((2 - 1 / 3 + 1 / 3 * unigram[1]) / 2)
    assert model.probability(0) == pytest.approx((2 - 1 / 3 + 1 / 3 * unigram[0]) / 2)
    # Never seen as a context: the order below alone.
    assert model.probability(1, [2]) == pytest.approx(unigram[1])
    assert model.bits([0, 1]) == pytest.approx(-math.log2(model.probability(0)) - math.log2(model.probability(1, [0])))
    assert model.bits([]) == 0.0


def test_nothing_known_is_uniform() -> None:
    assert NgramModel([], 3, 8).bits([1, 2, 3]) == pytest.approx(9.0)
    assert NgramModel([[0, 0, 0]], 3, 1).bits([0, 0]) == pytest.approx(0.0)


def test_a_source_of_known_entropy() -> None:
    """After code c come c + 1 and c + 2, mod 8, equally often: 1 bit a token, 3 without context."""
    rng = np.random.default_rng(0)
    tokens = {f"u{n}": Tokens(np.repeat(np.cumsum(rng.integers(1, 3, 400)) % 8, 2), 8) for n in range(10)}
    found = predictability(tokens, merges=16).values()
    assert found["unigram_bits_per_token"] == pytest.approx(3.0, abs=0.02)
    assert found["bigram_bits_per_token"] == pytest.approx(1.0, abs=0.03)
    assert found["3gram_bits_per_token"] == pytest.approx(1.0, abs=0.06)
    # Two frames a token: 25 tokens a second.
    assert found["bigram_bits_per_second"] == pytest.approx(25 * found["bigram_bits_per_token"])
    # 24 BPE tokens carry log2 24 bits at most; a merge for each of the 16 pairs halves the tokens already.
    assert 1 / math.log2(24) < found["bpe_tokens_per_token"] < 0.5
    assert "bpe_tokens_per_token" not in predictability(tokens).values()
    assert predictability(tokens, order=2).values().keys() < found.keys()


def test_bpe_of_a_repeated_pair_and_of_large_codebooks() -> None:
    assert bpe_compression([[0, 1] * 50], [[0, 1, 0, 1, 2], []], 3, 1) == [3, 0]
    assert bpe_compression([[0, 39_999] * 9], [[0, 39_999, 35_327, 35_328]], 40_000, 1) == [3]


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two, got 1"):
        predictability({"a": Tokens([0], 2)})
    with pytest.raises(ValueError, match="order must be at least 1"):
        predictability({"a": Tokens([0], 2), "b": Tokens([1], 2)}, order=0)
    with pytest.raises(ValueError, match=r"codes must lie in \[0, 2\)"):
        NgramModel([[0, 2]], 2, 2)
    with pytest.raises(ValueError, match="order and vocabulary"):
        NgramModel([], 0, 2)
