"""K-means in all the forms in which they are published, and what pretends to be one."""

import bz2
import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from spintok.models.importers import CheckpointError, pickled
from spintok.models.importers.centroids import read_centroids

joblib = pytest.importorskip("joblib")
cluster = pytest.importorskip("sklearn.cluster")


@pytest.fixture(scope="module")
def kmeans() -> Any:
    """A fitted MiniBatchKMeans with all that scikit-learn stores, a random state included."""
    x = np.random.default_rng(0).normal(size=(64, 24)).astype(np.float32)
    return cluster.MiniBatchKMeans(12, n_init=1, max_iter=2, random_state=np.random.RandomState(3)).fit(x)


def assert_read(path: Path, kmeans: Any) -> None:
    found = read_centroids(path)
    assert found.rotation is None
    assert found.codewords.dtype is torch.float32
    np.testing.assert_array_equal(found.codewords.numpy(), kmeans.cluster_centers_)


@pytest.mark.parametrize("compress", [0, 3, ("bz2", 3), ("xz", 1), ("lzma", 1), ("gzip", 3)])
def test_joblib(kmeans: Any, tmp_path: Path, compress: Any) -> None:
    joblib.dump(kmeans, tmp_path / "km.bin", compress=compress)
    assert_read(tmp_path / "km.bin", kmeans)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(kmeans: Any, tmp_path: Path, protocol: int) -> None:
    (tmp_path / "km.pkl").write_bytes(pickle.dumps(kmeans, protocol))
    assert_read(tmp_path / "km.pkl", kmeans)


def test_the_names_of_old_releases(kmeans: Any, tmp_path: Path) -> None:
    """Files of before scikit-learn 0.22, NumPy 2 and joblib 1.2, as the published ones are."""
    joblib.dump(kmeans, tmp_path / "new.bin", protocol=2)
    data = (tmp_path / "new.bin").read_bytes()
    for new, old in (
        (b"csklearn.cluster._kmeans\n", b"csklearn.cluster.k_means_\n"),
        (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"),
        (b"cjoblib.numpy_pickle\n", b"csklearn.externals.joblib.numpy_pickle\n"),
    ):
        assert new in data or b"multiarray" in new
        data = data.replace(new, old)
    (tmp_path / "km.bin").write_bytes(data)
    assert_read(tmp_path / "km.bin", kmeans)


def test_matrices(kmeans: Any, tmp_path: Path) -> None:
    centers = torch.from_numpy(kmeans.cluster_centers_)
    np.save(tmp_path / "km.npy", kmeans.cluster_centers_.astype(np.float64))
    np.save(tmp_path / "fortran.npy", np.asfortranarray(kmeans.cluster_centers_))
    torch.save(centers, tmp_path / "tensor.pt")
    torch.save({"cluster_centers_": centers, "other": centers[:2]}, tmp_path / "named.pt")
    torch.save({"state_dict": {"quantizer.weight": centers.half().float()}}, tmp_path / "nested.pt")
    torch.save([centers], tmp_path / "list.pt")
    torch.save({"c": centers, "counts": torch.ones(12)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file({"centroids": centers}, tmp_path / "km.safetensors")
    joblib.dump(kmeans.cluster_centers_, tmp_path / "array.joblib")
    joblib.dump(np.asfortranarray(kmeans.cluster_centers_.astype(">f4")), tmp_path / "order.joblib")
    for name in ("km.npy", "fortran.npy", "tensor.pt", "named.pt", "old.pt", "km.safetensors", "array.joblib"):
        assert_read(tmp_path / name, kmeans)
    assert_read(tmp_path / "order.joblib", kmeans)
    assert read_centroids(tmp_path / "nested.pt").codewords.shape == (12, 24)
    with pytest.raises(CheckpointError, match="must hold one matrix"):
        read_centroids(tmp_path / "list.pt")


def test_faiss(kmeans: Any, tmp_path: Path) -> None:
    """mHuBERT-147's units: the cells of an IVF index after OPQ, whose search gives the codes."""
    faiss = pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 24)).astype(np.float32)
    index = faiss.index_factory(24, "OPQ4_8,IVF12,PQ4x4")
    index.train(x)
    faiss.write_index(index, str(tmp_path / "units.index"))
    found = read_centroids(tmp_path / "units.index")
    assert found.rotation is not None
    ivf = faiss.extract_index_ivf(index)
    rotated = faiss.downcast_VectorTransform(index.chain.at(0)).apply(x)
    _, expected = ivf.quantizer.search(rotated, 1)
    np.testing.assert_array_equal(found.codebook().codes(torch.from_numpy(x)).numpy(), expected[:, 0])
    flat = faiss.IndexFlatL2(24)
    flat.add(kmeans.cluster_centers_)
    faiss.write_index(flat, str(tmp_path / "flat.index"))
    assert_read(tmp_path / "flat.index", kmeans)
    (tmp_path / "bad.index").write_bytes(b"IxF2" + bytes(40))
    with pytest.raises(CheckpointError, match="no index that faiss reads"):
        read_centroids(tmp_path / "bad.index")


def test_the_ids_are_those_of_scikit_learn() -> None:
    """100,000 frames; an id may differ only where the two distances are equal within float32."""
    rng = np.random.default_rng(1)
    centers = rng.normal(size=(200, 64)).astype(np.float32)
    kmeans = cluster.KMeans(200, init=centers, n_init=1, max_iter=1).fit(centers)
    frames = (centers[rng.integers(0, 200, 100_000)] + 1.5 * rng.normal(size=(100_000, 64))).astype(np.float32)
    from spintok.models.importers.centroids import Centroids

    ours = Centroids(torch.from_numpy(kmeans.cluster_centers_)).codebook().codes(torch.from_numpy(frames)).numpy()
    theirs = kmeans.predict(frames)
    differ = np.flatnonzero(ours != theirs)
    assert differ.size <= 10
    exact = kmeans.cluster_centers_.astype(np.float64)
    for i in differ:
        mine, other = (((frames[i] - exact[code]) ** 2).sum() for code in (ours[i], theirs[i]))
        # The products of scikit-learn round to float32: 64 additions of terms of this size.
        assert abs(mine - other) < 64 * np.finfo(np.float32).eps * (frames[i].astype(np.float64) ** 2).sum()


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.args


def test_bombs(tmp_path: Path, kmeans: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = tmp_path / "it-ran"
    bombs = {
        "posix.system": Evil(os.system, f"touch {trace}"),
        "builtins.eval": Evil(eval, f"open({str(trace)!r}, 'w')"),
        "builtins.getattr": Evil(getattr, kmeans, "fit"),
        "numpy.load": Evil(np.load, str(trace), None, True),
        "sklearn.linear_model": pytest.importorskip("sklearn.linear_model").LogisticRegression(),
    }
    for name, bomb in bombs.items():
        for form, what in (("alone", bomb), ("inside", [kmeans, bomb])):
            path = tmp_path / f"{name}-{form}.bin"
            joblib.dump(what, path)
            with pytest.raises(CheckpointError, match=f"refers to {name}.*which no K-means needs") as caught:
                read_centroids(path)
            assert str(caught.value).startswith(str(path))
            assert "\n" not in str(caught.value)
    assert not trace.exists()
    # Instructions that no K-means needs.
    for data, message in {
        b"\x80\x02c__builtin__\nobject\n(i__builtin__\nobject\n.": "instruction INST",
        b"Pabc\n.": "instruction PERSID",
        b"\x80\x02\x82\x01.": "instruction EXT1",
        b"\x80\x02}}b.": "sets the state of a dict",
        b"\x80\x02\x8a\x01\x05.": "holds a int without cluster_centers_",
        b"\x80\x02K\x05K\x06R.": "calls what is no function",
        b"\x80\x02R.": "damaged",
        b"\x80\x02": "damaged",
        b"hello": "damaged",
        b"": "damaged",
    }.items():
        (tmp_path / "p.bin").write_bytes(data)
        with pytest.raises(CheckpointError, match=message):
            read_centroids(tmp_path / "p.bin")
    # Data that unpacks to too much, and a pickle that goes on and on.
    monkeypatch.setattr(pickled, "MOST_BYTES", 1 << 20)
    for packed in (zlib.compress(bytes(1 << 22)), bz2.compress(bytes(1 << 22))):
        (tmp_path / "z.bin").write_bytes(packed)
        with pytest.raises(CheckpointError, match="unpacks to more than"):
            read_centroids(tmp_path / "z.bin")
    (tmp_path / "z.bin").write_bytes(zlib.compress(b"abc")[:-3] + b"xyz")
    with pytest.raises(CheckpointError, match="compressed data is damaged"):
        read_centroids(tmp_path / "z.bin")
    monkeypatch.setattr(pickled, "_MOST_INSTRUCTIONS", 100)
    (tmp_path / "long.bin").write_bytes(b"\x80\x02" + b"N0" * 200 + b"N.")
    with pytest.raises(CheckpointError, match="more instructions"):
        read_centroids(tmp_path / "long.bin")


def test_what_cannot_be_used(tmp_path: Path, kmeans: Any) -> None:
    joblib.dump(cluster.KMeans(3), tmp_path / "unfitted.bin")
    joblib.dump(kmeans, tmp_path / "km.bin")
    (tmp_path / "cut.bin").write_bytes((tmp_path / "km.bin").read_bytes()[:700])
    joblib.dump(np.array([{}, {}], dtype=object), tmp_path / "objects.bin")
    joblib.dump({"cluster_centers_": np.zeros(3)}, tmp_path / "flat.bin")
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    np.save(tmp_path / "pickled.npy", np.array([[{}]]), allow_pickle=True)
    np.save(tmp_path / "nan.npy", np.full((2, 3), np.nan))
    np.save(tmp_path / "none.npy", np.zeros((0, 3)))
    torch.save({"a": torch.ones(2, 3), "b": torch.ones(4, 3)}, tmp_path / "two.pt")
    for name, message in {
        "unfitted.bin": "without cluster_centers_: it was not fitted",
        "cut.bin": "incomplete|damaged",
        "objects.bin": "which are no numbers",
        "flat.bin": "matrix of numbers, not",
        "words.npy": "matrix of numbers, not",
        "pickled.npy": "no array of numbers",
        "nan.npy": "NaN or infinite",
        "none.npy": "shape",
        "two.pt": r"must hold one matrix, the centroids; it holds a \(2, 3\), b \(4, 3\)",
        "missing.bin": "there is no such file",
    }.items():
        with pytest.raises(CheckpointError, match=message) as caught:
            read_centroids(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)
