"""``spintok bench stream``: MFCC, which hear 100 ms, agree at every latency that is longer."""

import json

import pytest

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


def test_phones_and_voices_are_measured_at_each_latency(speech, tmp_path, capsys) -> None:
    rows = [
        {"id": path.stem, "phones": [["AH" if i % 2 else "S", 0.1 * i, 0.1 * (i + 1)] for i in range(8)]}
        for path in sorted(speech.glob("*.flac"))
    ]
    (tmp_path / "phones.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [
        *("mfcc-kmeans-100", str(speech), "--utterances", "3", "--pushes", "0", "--sessions", "--latencies", "320ms"),
        *("--alignments", str(tmp_path / "phones.jsonl"), "--json", str(tmp_path / "out.json")),
    ]
    main(arguments)
    whole, long = json.loads((tmp_path / "out.json").read_text())["quality"]
    assert whole["pnmi"] == long["pnmi"] > 0
    assert whole["ued_pooled_speaker"] == long["ued_pooled_speaker"] > 0
    assert "| latency | agreement | pnmi | ued_pooled_speaker |" in capsys.readouterr().out


def test_the_curve_is_drawn(speech, tmp_path) -> None:
    pytest.importorskip("matplotlib", reason="spintok[bench] is not installed")
    arguments = ["mfcc-kmeans-100", str(speech), "--utterances", "1", "--pushes", "0", "--sessions"]
    main([*arguments, "--plot", str(tmp_path / "curve.svg")])
    assert "</svg>" in (tmp_path / "curve.svg").read_text()
