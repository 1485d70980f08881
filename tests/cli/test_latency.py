"""``spintok encode --latency``: the tokens of a stream, and folders that say so."""

import json

from command_line import run
from forks import fork_commands

import spintok
from spintok.data.audio import read
from spintok.streaming.tokens import merge


def test_encode_gives_the_tokens_of_a_stream(capsys, speech) -> None:
    audio = speech / "fred_yes.flac"
    code, out, _ = run(
        capsys, "encode", audio, "-t", "mfcc-kmeans-100", "--no-dedup", "--latency", "320ms", "--format", "text"
    )
    assert code == 0
    stream = spintok.load("mfcc-kmeans-100").stream(0.32)
    samples = read(audio)
    parts = [stream.push(samples[start : start + 777], 16_000) for start in range(0, len(samples), 777)]
    assert list(map(int, out.split())) == merge([*parts, stream.close()]).codes.tolist()


def test_folders_carry_the_latency(capsys, speech, tmp_path, monkeypatch) -> None:
    arguments = ("encode", speech, tmp_path / "out", "-t", "mfcc-kmeans-100", "-q", "--latency")
    assert run(capsys, *arguments, "0.16s")[0] == 0
    description = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    assert description["latency"] == 0.16
    assert description["fingerprint"] == spintok.load("mfcc-kmeans-100").at(0.16).fingerprint
    code, _, errors = run(capsys, *arguments, "320ms")
    assert code != 0
    assert "another tokenizer, latency or precision" in errors
    fork_commands(monkeypatch, tmp_path)
    code, out, _ = run(capsys, "verify", tmp_path / "out", "--sample", "2")
    assert code == 0
    assert "0 differ" in out


def test_impossible_latencies_are_one_line(capsys, speech) -> None:
    for latency, message in (("50ms", "multiple of 0.02"), ("soon", "320ms or 0.32s")):
        code, _, errors = run(capsys, "encode", speech / "fred_yes.flac", "--latency", latency)
        assert code != 0
        assert message in errors
        assert len(errors.strip().splitlines()) == 1
    code, _, errors = run(capsys, "encode", speech, "--features", "2", "--latency", "320ms")
    assert code != 0
    assert "--latency is for tokens" in errors
