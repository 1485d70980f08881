import numpy as np
import pytest

from benchmarks import kmeans, train


def test_the_benchmark_checks_the_loss_and_shows_every_part(speech, capsys) -> None:
    sizes = ["--size", "tiny", "--codebooks", "8", "16", "--seconds", "2"]
    train.main([str(speech), *sizes, "--rounds", "1", "--workers", "0", "--device", "cpu"])
    out = capsys.readouterr().out
    assert "its definition in float64" in out
    for part in ("read", "perturb", "frozen layers", "trained layers", "loss", "backward", "update"):
        assert f"\n{part} " in out


def test_the_benchmark_of_kmeans_compares_both_engines(capsys, tmp_path, monkeypatch) -> None:
    pytest.importorskip("faiss")
    np.save(tmp_path / "f.npy", kmeans.drawn(3_000, 8))
    options = ["--sizes", "12", "--iterations", "4", "--rounds", "1"]
    kmeans.main([str(tmp_path / "f.npy"), *options])
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["12"]]
    assert [line[1] for line in lines] == ["torch", "faiss"]
    monkeypatch.setattr(kmeans, "TOLERANCE", -1.0)
    with pytest.raises(SystemExit, match="no figures: the mean squared distances are"):
        kmeans.main(["--count", "3000", "--width", "8", *options])
