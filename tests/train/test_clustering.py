from dataclasses import replace

import faiss
import numpy as np
import pytest
import torch
from spintok_kernels import assign

from spintok.train import clustering, clustering_state
from spintok.train.clustering import KMeansConfig, fit
from spintok.train.clustering_state import StateFile

BLOBS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)) * 20


def features(count: int = 3_000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return BLOBS.repeat(count // 6, 1) + torch.randn(count, 3, generator=generator) * 0.1


@pytest.mark.parametrize("engine", ["torch", "faiss"])
def test_finds_well_separated_clusters_whatever_the_blocks(monkeypatch, engine) -> None:
    data = features().numpy()
    for block in (3_000, 701):
        monkeypatch.setattr(clustering, "_BLOCK", block)
        result = fit(data, KMeansConfig(6, sample=600, engine=engine))
        nearest = torch.cdist(result.codewords, BLOBS).min(1)
        assert sorted(nearest.indices.tolist()) == list(range(6))
        assert float(nearest.values.max()) < 0.05
        # Three coordinates of variance 0.01.
        assert result.distance == pytest.approx(0.03, rel=0.1)


def test_the_same_seed_gives_the_same_codewords_and_another_does_not() -> None:
    data = torch.randn(2_000, 5, generator=torch.Generator().manual_seed(2))
    one, two, other = (fit(data.numpy(), KMeansConfig(20, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(one.codewords, two.codewords)
    assert not torch.equal(one.codewords, other.codewords)


def test_as_good_as_scikit_learn() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    data = torch.randn(4_000, 8, generator=torch.Generator().manual_seed(3))
    ours = fit(data.numpy(), KMeansConfig(30, restarts=3))
    theirs = cluster.KMeans(30, n_init=3, random_state=0).fit(data.numpy())
    assert ours.distance < theirs.inertia_ / len(data) * 1.01


def test_more_starts_are_never_worse_and_passes_go_down() -> None:
    data = torch.randn(3_000, 4, generator=torch.Generator().manual_seed(4))
    passes: list[tuple[int, int, float]] = []
    one = fit(data.numpy(), KMeansConfig(25))
    three = fit(data.numpy(), KMeansConfig(25, restarts=3), lambda *step: passes.append(step))
    assert three.distance <= one.distance
    assert {start for start, _, _ in passes} == {0, 1, 2}
    first = [distance for start, _, distance in passes if start == 0]
    assert first == sorted(first, reverse=True)


def test_every_codeword_is_used_even_with_duplicates() -> None:
    data = torch.cat([torch.zeros(500, 2), torch.randn(500, 2, generator=torch.Generator().manual_seed(5)) + 5])
    result = fit(data.numpy(), KMeansConfig(16, sample=100))
    assert len(torch.unique(torch.cdist(data, result.codewords).argmin(1))) == 16


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="9 features are fewer than 10"):
        fit(np.zeros((9, 2), dtype=np.float32), KMeansConfig(10))
    with pytest.raises(ValueError, match="NaN"):
        fit(np.array([[0.0], [1.0], [np.nan]], dtype=np.float32), KMeansConfig(1, sample=2))
    with pytest.raises(ValueError, match="sample"):
        KMeansConfig(10, sample=9)
    with pytest.raises(ValueError, match="at least 1"):
        KMeansConfig(0)


def test_faiss_finds_what_torch_finds(tmp_path) -> None:
    """The same start, so only rounding differs: torch sums in float64, faiss in float32, some 1e-6 of each mean.

    That moves few features to another codeword, and the mean squared distance by much less than 1e-4 of itself.
    """
    generator = torch.Generator().manual_seed(6)
    data = torch.randn(5_000, 12, generator=generator)
    data.numpy().tofile(tmp_path / "features")
    mapped = np.memmap(tmp_path / "features", dtype=np.float32, mode="r", shape=(5_000, 12))
    config = KMeansConfig(40, iterations=30, tolerance=0.0, restarts=2)
    passes: list[tuple[int, int, float]] = []
    ours = fit(mapped, config)
    theirs = fit(mapped, replace(config, engine="faiss"), lambda *step: passes.append(step))
    assert theirs.distance == pytest.approx(ours.distance, rel=1e-4)
    assert passes[-1][0] == 1
    # Equal codewords give equal codes: those of faiss, assigned by faiss and by spintok.
    index = faiss.IndexFlatL2(12)
    index.add(theirs.codewords.numpy())
    expected = index.search(data.numpy(), 1)[1][:, 0]
    np.testing.assert_array_equal(assign(data, theirs.codewords, metric="l2").numpy(), expected)


def test_faiss_keeps_as_many_codewords_as_asked_for() -> None:
    data = np.random.default_rng(0).standard_normal((50, 3), dtype=np.float32)
    assert fit(data, KMeansConfig(50, sample=50, engine="faiss")).codewords.shape == (50, 3)


def test_faiss_on_a_gpu_needs_its_gpu_build(monkeypatch) -> None:
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0, raising=False)
    with pytest.raises(ValueError, match="needs faiss-gpu on a GPU"):
        fit(np.zeros((9, 2), dtype=np.float32), KMeansConfig(2, engine="faiss"), device=torch.device("cuda"))


@pytest.mark.parametrize("engine", ["torch", "faiss"])
def test_a_clustering_goes_on_where_it_ended(tmp_path, monkeypatch, engine) -> None:
    """In the middle of each of two starts: every further pass is that of a run in one go, bit for bit."""
    monkeypatch.setattr(clustering_state, "SAVE_EVERY", 0.0)
    data = torch.randn(600, 4, generator=torch.Generator().manual_seed(6)).numpy()
    config = KMeansConfig(8, iterations=7, tolerance=0, restarts=2, sample=100, engine=engine)
    whole: list[tuple[int, int, float]] = []
    passes: list[tuple[int, int, float]] = []
    expected = fit(data, config, lambda *step: whole.append(step))

    ends = [(0, 3), (1, 2), (1, 6)]

    def ending(*step) -> None:
        passes.append(step)
        if step[:2] in ends:
            ends.remove(step[:2])
            raise OSError("ended")

    for _ in range(3):
        with pytest.raises(OSError, match="ended"):
            fit(data, config, ending, file=StateFile(tmp_path / "state"))
        # The pass after which the process ended is done again.
        passes.pop()
    result = fit(data, config, lambda *step: passes.append(step), file=StateFile(tmp_path / "state"))
    assert passes == whole
    assert torch.equal(result.codewords, expected.codewords)
    assert (result.distance, result.iterations) == (expected.distance, expected.iterations)


def test_a_damaged_state_is_one_line(tmp_path) -> None:
    (tmp_path / "state").write_bytes(b"not a state")
    with pytest.raises(ValueError, match="state: not the state of a clustering .*; delete it to start again"):
        fit(features().numpy(), KMeansConfig(6, sample=600), file=StateFile(tmp_path / "state"))
