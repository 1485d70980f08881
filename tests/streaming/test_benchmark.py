"""``spintok bench stream``: MFCC, which hear 100 ms, agree at every latency that is longer."""

import json

from benchmarks.stream import main


def test_the_benchmark_measures(speech, tmp_path, capsys) -> None:
    arguments = [
        *("mfcc-kmeans-100", str(speech), "--utterances", "2", "--pushes", "12", "--sessions", "2"),
        *("--latencies", "40ms", "320ms", "--json", str(tmp_path / "out.json")),
    ]
    main(arguments)
    found = json.loads((tmp_path / "out.json").read_text())
    whole, short, long = found["quality"]
    assert (whole["latency"], short["latency"], long["latency"]) == (None, 0.04, 0.32)
    assert whole["agreement"] == long["agreement"] == 1.0
    # A window of 40 ms ends before the differences do.
    assert 0.9 < short["agreement"] <= 1.0
    assert [row["latency"] for row in found["push"]] == [0.04, 0.32]
    assert all(0 < row["p50"] <= row["p95"] <= row["p99"] for row in [*found["push"], *found["sessions"]])
    assert "| 0.32 s | 1.0000 |" in capsys.readouterr().out
