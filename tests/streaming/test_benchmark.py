"""``spintok bench stream``: MFCC, which hear 100 ms, agree at every latency that is longer."""

import json

import numpy as np
import pytest

import spintok
from benchmarks.stream import encode, main
from spintok.data.labels.alignment_files import read_alignments
from spintok.data.manifest import scan
from spintok.evaluate.noise_sources import NoiseSources
from spintok.evaluate.perturbations import Condition
from spintok.evaluate.phones import PhoneScore
from spintok.evaluate.robustness import robustness


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
    # They are the figures of `spintok evaluate`.
    utterances = scan(speech)[::2]
    tokenizer = spintok.load("mfcc-kmeans-100")
    phones = {key: one.phones for key, one in read_alignments(tmp_path / "phones.jsonl").items()}
    tokens = {utterance.key: tokenizer.encode(utterance.path) for utterance in utterances}
    scores = PhoneScore(tokens, phones).values()
    voice = robustness(tokenizer, utterances, [Condition("speaker")], NoiseSources()).values()["ued_pooled_speaker"]
    for row in (whole, long):
        assert (row["pnmi"], row["pnmi_speech"]) == (scores["pnmi"], scores["pnmi_speech"])
        assert row["ued_pooled_speaker"] == voice > 0
    assert "| latency | agreement | pnmi | pnmi_speech | ued_pooled_speaker |" in capsys.readouterr().out


def test_threads_share_the_recordings_in_order(speech) -> None:
    tokenizer = spintok.load("mfcc-kmeans-100").at(0.32)
    paths = [utterance.path for utterance in scan(speech)]
    alone = encode(tokenizer, paths, 1)
    for workers in (2, 4):
        shared = encode(tokenizer, paths, workers)
        assert all(np.array_equal(a.codes, b.codes) for a, b in zip(alone, shared, strict=True))


def test_the_curve_is_drawn(speech, tmp_path) -> None:
    pytest.importorskip("matplotlib", reason="spintok[bench] is not installed")
    arguments = ["mfcc-kmeans-100", str(speech), "--utterances", "1", "--pushes", "0", "--sessions"]
    main([*arguments, "--plot", str(tmp_path / "curve.svg")])
    assert "</svg>" in (tmp_path / "curve.svg").read_text()
