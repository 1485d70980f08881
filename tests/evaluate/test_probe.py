"""Probes on data with a known answer, against scikit-learn, and a sweep over a small encoder."""

import numpy as np
import pytest
import torch
from voices import mfcc_tokenizer, small_encoder, voices

from spintok.chunking import Window
from spintok.data.labels.alignments import Interval
from spintok.evaluate.features import iter_layer_features, layer_features, layers_of
from spintok.evaluate.probe import LayerFrames, collect_frames, probe_codes, probe_features, sweep

RNG = np.random.default_rng(0)


def clusters(frames: int = 1200) -> tuple[np.ndarray, np.ndarray]:
    labels = RNG.integers(0, 4, frames)
    return (2 * np.eye(4)[labels] + RNG.standard_normal((frames, 4))).astype(np.float32), labels


def test_features_against_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    x, labels = clusters()
    train = np.arange(len(x)) < 800
    expected = LogisticRegression().fit(x[train], labels[train]).predict(x)
    assert (probe_features(x, labels, train) == expected).mean() > 0.98


def test_codes_get_their_most_frequent_label() -> None:
    labels = RNG.integers(0, 4, 1000)
    codes = np.where(RNG.random(1000) < 0.8, labels + 4, RNG.integers(0, 9, 1000))
    train = np.ones(1000, dtype=bool)
    best = [np.bincount(labels[codes == code], minlength=4).argmax() for code in range(9)]
    assert (probe_codes(codes, 9, labels, train) == np.array(best)[codes]).all()


def test_a_sweep_ranks_what_it_should() -> None:
    x, labels = clusters(2000)
    owner = np.arange(2000) // 100
    noise = RNG.standard_normal((2000, 4)).astype(np.float32)
    labels[:50] = -1
    layers, names = {0: noise, 1: x}, ("layer_0", "layer_1")
    frames = LayerFrames(tuple(map(str, range(20))), owner, layers, labels, tuple("abcd"), names)
    steps: list[None] = []
    codes = np.where(labels >= 0, labels, 0)
    found = sweep(frames, {"primary": (codes, 4)}, codebook_size=16, progress=lambda: steps.append(None))
    values = found.values()
    assert values["primary_tokens"] == 100.0
    assert values["layer_1_features"] > values["layer_1_kmeans"] - 2 > 60
    assert abs(values["layer_0_features"] - 25) < 12
    assert 20 < values["chance"] < 35
    assert len(steps) == 6
    assert len(found.units) == 5
    assert sweep(frames, {}, codebook_size=16).values()["layer_1_kmeans"] == values["layer_1_kmeans"]
    silent = LayerFrames(("a", "b"), owner[:200], {1: x[:200]}, np.full(200, -1), (), ("layer_1",))
    with pytest.raises(ValueError, match="two utterances with phones, got 0"):
        sweep(silent, {}, codebook_size=4)


@pytest.mark.parametrize("make", [mfcc_tokenizer, small_encoder])
def test_windows_give_the_features_that_tokens_come_from(make: object) -> None:
    tokenizer = make()  # type: ignore[operator]
    utterance = voices()[0]
    for window in (tokenizer.window, Window(keep=20, context=tokenizer.encoder.context_frames)):
        tokenizer.window = window
        expected = tokenizer.encode(utterance.path)
        ((_, (features,)),) = iter_layer_features(tokenizer, [utterance], [tokenizer.layer], {})
        codes = tokenizer.codebooks["primary"].codes(features)
        assert codes.tolist() == expected.codes.tolist()
        layers = layers_of(tokenizer)
        assert torch.equal(layer_features(tokenizer, utterance, layers)[-1], features)


def test_frames_of_all_layers() -> None:
    tokenizer = small_encoder()
    phones = {u.key: [Interval("SIL", 0.0, 0.3), Interval("a", 0.3, 0.6)] for u in voices()[:2]}
    found = collect_frames(tokenizer, voices()[:3], phones, layers_of(tokenizer), frames=10**9)
    assert list(found.layers) == [0, 1, 2]
    assert sorted(found.keys) == sorted(u.key for u in voices()[:3])
    for number, key in enumerate(found.keys):
        mine = found.labels[found.utterance == number]
        # Frame 15 is centred at 0.3125 s.
        expected = [0] * 15 + [1] * 15 + [-1] * (len(mine) - 30) if key in phones else [-1] * len(mine)
        assert mine.tolist() == expected
    few = collect_frames(tokenizer, voices(), phones, [1], frames=1)
    assert len(few.keys) == 1
    assert layers_of(tokenizer, [1]) == [1]
    assert layers_of(mfcc_tokenizer()) == [0]
    with pytest.raises(ValueError, match="layers 0 to 2, not 3"):
        layers_of(tokenizer, [3])
    with pytest.raises(ValueError, match="no layers to choose"):
        layers_of(mfcc_tokenizer(), [1])
