import pytest
import torch

from spintok.train.clustering import KMeansConfig, fit

BLOBS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)) * 20


def features(count: int = 3_000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return BLOBS.repeat(count // 6, 1) + torch.randn(count, 3, generator=generator) * 0.1


def test_finds_well_separated_clusters_whatever_the_chunks() -> None:
    data = features()
    results = [fit(lambda rows=rows: data.split(rows), KMeansConfig(6, sample=600)) for rows in (3_000, 701)]
    for result in results:
        nearest = torch.cdist(result.codewords, BLOBS).min(1)
        assert sorted(nearest.indices.tolist()) == list(range(6))
        assert float(nearest.values.max()) < 0.05
        # Three coordinates of variance 0.01.
        assert result.distance == pytest.approx(0.03, rel=0.1)


def test_the_same_seed_gives_the_same_codewords_and_another_does_not() -> None:
    data = torch.randn(2_000, 5, generator=torch.Generator().manual_seed(2))
    one, two, other = (fit(lambda: data.split(500), KMeansConfig(20, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(one.codewords, two.codewords)
    assert not torch.equal(one.codewords, other.codewords)


def test_as_good_as_scikit_learn() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    data = torch.randn(4_000, 8, generator=torch.Generator().manual_seed(3))
    ours = fit(lambda: data.split(1_000), KMeansConfig(30, restarts=3))
    theirs = cluster.KMeans(30, n_init=3, random_state=0).fit(data.numpy())
    assert ours.distance < theirs.inertia_ / len(data) * 1.01


def test_more_starts_are_never_worse_and_passes_go_down() -> None:
    data = torch.randn(3_000, 4, generator=torch.Generator().manual_seed(4))
    heard: list[tuple[int, int, float]] = []
    one = fit(lambda: data.split(999), KMeansConfig(25))
    three = fit(lambda: data.split(999), KMeansConfig(25, restarts=3), lambda *step: heard.append(step))
    assert three.distance <= one.distance
    assert {start for start, _, _ in heard} == {0, 1, 2}
    first = [distance for start, _, distance in heard if start == 0]
    assert first == sorted(first, reverse=True)


def test_every_codeword_is_used_even_with_duplicates() -> None:
    data = torch.cat([torch.zeros(500, 2), torch.randn(500, 2, generator=torch.Generator().manual_seed(5)) + 5])
    result = fit(lambda: data.split(100), KMeansConfig(16, sample=100))
    assert len(torch.unique(torch.cdist(data, result.codewords).argmin(1))) == 16


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="9 features are fewer than 10"):
        fit(lambda: [torch.zeros(9, 2)], KMeansConfig(10))
    with pytest.raises(ValueError, match="NaN"):
        fit(lambda: [torch.tensor([[0.0], [1.0], [float("nan")]])], KMeansConfig(1, sample=2))
    with pytest.raises(ValueError, match="sample"):
        KMeansConfig(10, sample=9)
    with pytest.raises(ValueError, match="at least 1"):
        KMeansConfig(0)
