"""The progress of jobs moves within long files."""

import re

import numpy as np
import pytest
import soundfile

import spintok
from spintok.corpus.features import FeatureOptions, encode_features
from spintok.corpus.tokens import Options, encode_corpus
from spintok.data.manifest import scan


@pytest.mark.parametrize("kind", ["tokens", "features"])
def test_progress_moves_within_a_long_file_and_ends_at_the_total(tmp_path, kind) -> None:
    (tmp_path / "in").mkdir()
    noise = 0.1 * np.random.default_rng(0).standard_normal(80 * 8000)
    soundfile.write(tmp_path / "in/long.wav", noise, 8000)
    soundfile.write(tmp_path / "in/short.wav", noise[:8000], 8000)
    (tmp_path / "in/bad.wav").write_text("no audio")
    calls = []

    def progress(task: str, done: float, total: float, note: str = "") -> None:
        calls.append((task, done, total, note))

    def encode():
        tokenizer, utterances = spintok.load("mfcc-kmeans-100"), scan(tmp_path / "in")
        if kind == "tokens":
            return encode_corpus(tokenizer, utterances, tmp_path / "out", Options(shard_size=2), progress)
        return encode_features(tokenizer, utterances, tmp_path / "out", FeatureOptions(layer=0), progress)

    assert encode().encoded == 2
    assert {(task, total) for task, _, total, _ in calls} == {("encoding", 3)}
    done = [call[1] for call in calls]
    assert done == sorted(done)
    assert done[-1] == 3
    assert len([share for share in done if share != int(share)]) >= 3
    assert re.fullmatch(r"0:01:21 of audio, \d+ x real time", calls[-1][3])
    calls.clear()
    assert encode().resumed == 2
    assert [call[1] for call in calls][-1] == 3
