"""``spintok stream``: raw samples to a line of JSON for each chunk, however the pipe cuts them."""

import json
import subprocess
import sys
import types
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from command_line import run

import spintok
from spintok.data.audio import read
from spintok.data.microphone import microphone_blocks

COMMAND = [sys.executable, "-m", "spintok", "stream", "-t", "mfcc-kmeans-100"]


def test_lines_are_the_tokens_of_the_latency(speech) -> None:
    samples = (read(speech / "fred_yes.flac").numpy() * 32_767).astype("<i2")
    raw = samples.tobytes()
    process = subprocess.Popen(
        [*COMMAND, "--latency", "160ms"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    # A first piece that ends inside a sample.
    process.stdin.write(raw[:4_001])
    process.stdin.flush()
    out, err = process.communicate(raw[4_001:])
    assert process.returncode == 0, err
    assert err == b""
    rows = [json.loads(line) for line in out.splitlines()]
    whole = spintok.load("mfcc-kmeans-100").encode(samples, 16_000, latency=0.16)
    assert [code for row in rows for code in row["codes"]] == whole.codes.tolist()
    # Chunks of 80 ms: half the latency is look-ahead, as MFCC cannot stream otherwise.
    assert [row["start"] for row in rows[:3]] == [0.0, 0.08, 0.16]
    assert rows[-1]["end"] == whole.num_frames / 50
    assert all(sum(row["durations"]) == len(row["codes"]) for row in rows)
    assert [row["continues"] for row in rows[1:]] == [
        row["codes"][0] == before["codes"][-1] for before, row in pairwise(rows)
    ]


def test_turns_come_between_the_tokens(capsys, speech, standard_input) -> None:
    pytest.importorskip("onnxruntime", reason="spintok[turns] is not installed")
    pause = np.zeros(16_000, np.float32)
    samples = np.concatenate([pause, read(speech / "beth_river.flac").numpy(), pause])
    standard_input(samples.tobytes())
    code, out, _ = run(capsys, "stream", "-t", "mfcc-kmeans-100", "--turns", "--format", "f32le")
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    events = [row for row in rows if "event" in row]
    assert [event["event"] for event in events] == ["speech_start", "speech_end"]
    assert 0.7 < events[0]["seconds"] < 1.3 < 3.0 < events[1]["seconds"] < 4.2
    whole = spintok.load("mfcc-kmeans-100").encode(samples, 16_000, latency=0.32)
    assert [code for row in rows for code in row.get("codes", [])] == whole.codes.tolist()


def test_other_formats_and_rates(capsys, speech, standard_input) -> None:
    samples = read(speech / "fred_yes.flac").numpy()
    whole = spintok.load("mfcc-kmeans-100").encode(samples, 8_000, latency=0.32)
    standard_input(samples.tobytes())
    code, out, _ = run(capsys, "stream", "-t", "mfcc-kmeans-100", "--rate", "8000", "--format", "f32le")
    assert code == 0
    assert [code for line in out.splitlines() for code in json.loads(line)["codes"]] == whole.codes.tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "ends inside a sample"),
        (("--latency", "90ms"), "multiple of 0.02"),
        (("--rate", "0"), "rate"),
        (("--input-device", "x"), "add --microphone"),
    ],
)
def test_mistakes_are_one_line(capsys, standard_input, arguments: tuple[str, ...], message: str) -> None:
    standard_input(b"abc")
    code, _, err = run(capsys, "stream", "-t", "mfcc-kmeans-100", *arguments)
    assert code != 0
    assert message in err
    assert len(err.strip().splitlines()) == 1


class Recorder:
    """Stands for PortAudio, which a test machine has no microphone for: plays blocks, then interrupts."""

    blocks: list[np.ndarray]

    def __init__(self, samplerate: int, blocksize: int, device: Any, channels: int, dtype: str, callback: Any) -> None:
        if device == "nowhere":
            raise ValueError("No input device matching 'nowhere'")
        assert (channels, dtype, blocksize) == (1, "float32", samplerate // 50)
        self.callback = callback

    def __enter__(self) -> None:
        for block in self.blocks:
            self.callback(block[:, None], len(block), None, "")
        self.callback(np.zeros((1, 1)), 1, None, "input overflow")

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    module = types.SimpleNamespace(InputStream=Recorder, PortAudioError=OSError)
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return Recorder


def test_the_microphone(capsys, speech, recorder: type[Recorder]) -> None:
    samples = read(speech / "fred_yes.flac").numpy()
    recorder.blocks = [samples[start : start + 320] for start in range(0, 320 * 20, 320)]
    blocks = microphone_blocks(16_000)
    np.testing.assert_array_equal(np.concatenate([next(blocks) for _ in range(20)]), samples[: 320 * 20])
    code, out, err = run(capsys, "stream", "-t", "mfcc-kmeans-100", "--microphone")
    # Lost samples are an error, not a silent gap.
    assert code != 0
    assert "lost samples: input overflow" in err
    assert len(out.splitlines()) == 1
    code, _, err = run(capsys, "stream", "-t", "mfcc-kmeans-100", "--microphone", "--input-device", "nowhere", "-q")
    assert code != 0
    assert "nowhere" in err
