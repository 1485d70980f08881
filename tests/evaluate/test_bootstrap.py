"""The bootstrap against the central limit theorem, paired against unpaired draws, groups, and the jackknife."""

import numpy as np
import pytest

from spintok.evaluate.bootstrap import Grouped, Ratios, difference, interval, jackknife, replicates


def mean_of(values: np.ndarray) -> Ratios:
    return Ratios(tuple(map(str, range(values.size))), {"mean": (values, np.ones(values.size))})


def test_interval_of_a_mean_is_that_of_the_central_limit() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = interval(replicates(mean_of(values), 2000)["mean"], values.mean())
    error = values.std() / np.sqrt(values.size)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_pairs_see_a_difference_that_is_smaller_than_the_spread() -> None:
    rng = np.random.default_rng(2)
    first = rng.normal(0, 10, 200)
    second = first + rng.normal(0.5, 1, 200)
    draws = [replicates(mean_of(values), 1000)["mean"] for values in (first, second)]
    found = difference(*draws, (second - first).mean())
    assert 0 < found["low"] < (second - first).mean() < found["high"]
    assert found["p"] == pytest.approx(2 / 1001)
    unpaired = difference(draws[0], replicates(mean_of(second), 1000, seed=9)["mean"], (second - first).mean())
    assert unpaired["low"] < 0 < unpaired["high"]
    assert difference(draws[0], draws[0], 0.0) == {"low": 0.0, "high": 0.0, "p": 1.0}


def test_an_offset_that_only_draws_have_is_taken_out() -> None:
    """Entropy over utterances that each have a code of their own: a draw with repeats always has less."""

    class Entropy:
        units = tuple(map(str, range(50)))

        def values(self, weights: np.ndarray | None = None) -> dict[str, float]:
            share = (np.ones(50) if weights is None else weights) / 50
            return {"entropy": float(-(share[share > 0] * np.log2(share[share > 0])).sum())}

    value = Entropy().values()["entropy"]
    draws = replicates(Entropy(), 200)["entropy"]
    assert draws.max() < value
    low, high = interval(draws, value)
    assert low < value < high


def test_same_seed_same_draws_and_ratios_of_sums() -> None:
    ratios = Ratios(("a", "b"), {"pooled": ([1, 3], [2, 10]), "empty": ([0, 0], [0, 0])})
    assert ratios.values() == {"pooled": 4 / 12, "empty": 0.0}
    assert ratios.values(np.array([2.0, 0.0]))["pooled"] == 0.5
    first, again = replicates(ratios, 50, seed=3), replicates(ratios, 50, seed=3)
    assert np.array_equal(first["pooled"], again["pooled"])
    assert set(first["pooled"].round(6)) == {0.5, round(4 / 12, 6), 0.3}


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 draw"):
        replicates(mean_of(np.ones(2)), 0)
    with pytest.raises(ValueError, match="equal numbers"):
        difference([1.0], [1.0, 2.0], 0.0)


def test_a_group_counts_as_its_units_together() -> None:
    ratios = Ratios(("a", "b", "c"), {"mean": ([1, 2, 6], [1, 1, 1])})
    grouped = Grouped(ratios, ["x", "y", "x"])
    assert grouped.units == ("x", "y")
    assert grouped.values() == {"mean": 3.0}
    assert grouped.values(np.array([2.0, 1.0])) == ratios.values(np.array([2.0, 1.0, 2.0])) == {"mean": 16 / 5}
    assert grouped.sums([1, 10, 100]).tolist() == [101, 10]


def test_intervals_over_speakers_are_as_wide_as_speakers_differ() -> None:
    """Ten utterances of each of 40 speakers that differ much more than their utterances do."""
    rng = np.random.default_rng(0)
    speakers = rng.normal(0, 1, 40)
    values = np.repeat(speakers, 10) + rng.normal(0, 0.1, 400)
    names = [str(i) for i in range(40) for _ in range(10)]
    wide = interval(replicates(Grouped(mean_of(values), names), 1000)["mean"], values.mean())
    narrow = interval(replicates(mean_of(values), 1000)["mean"], values.mean())
    error = speakers.std() / np.sqrt(40)
    assert wide[1] - wide[0] == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert wide[1] - wide[0] > 2.5 * (narrow[1] - narrow[0])


class Variance:
    """The variance that divides by N, whose jackknife is known to be the one that divides by N - 1."""

    def __init__(self, values: np.ndarray) -> None:
        self._x = values
        self.units = tuple(map(str, range(values.size)))

    def values(self, weights: np.ndarray | None = None) -> dict[str, float]:
        w = np.ones(self._x.size) if weights is None else weights
        mean = w @ self._x / w.sum()
        return {"variance": float(w @ (self._x - mean) ** 2 / w.sum())}


def test_the_jackknife_of_the_variance_is_unbiased() -> None:
    x = np.random.default_rng(3).normal(0, 2, 12)
    assert jackknife(Variance(x), np.ones(12))["variance"] == pytest.approx(x.var(ddof=1))
    # A mean has no bias, whatever the sizes of the groups.
    ratios = Ratios(tuple("abcd"), {"mean": ([1.0, 5.0, 2.0, 9.0], [1.0, 3.0, 2.0, 7.0])})
    assert jackknife(ratios, [1, 3, 2, 7])["mean"] == pytest.approx(17 / 13)
    with pytest.raises(ValueError, match="at least 2 units"):
        jackknife(mean_of(np.ones(1)), [1])


def test_the_jackknife_of_blocks_is_unbiased_too() -> None:
    """The variance of 12 numbers, two deleted at a time: 11 / 12 of the truth before, the truth after, on average."""
    rng = np.random.default_rng(4)
    samples = [Variance(rng.normal(0, 2, 12)) for _ in range(600)]
    plain = np.mean([one.values()["variance"] for one in samples])
    corrected = np.mean([jackknife(one, np.ones(12), blocks=6)["variance"] for one in samples])
    assert plain == pytest.approx(4 * 11 / 12, abs=0.15)
    assert corrected == pytest.approx(plain * 12 / 11, rel=0.02)
