"""UED against jiwer, and conditions against their definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from voices import SPEECH, mfcc_tokenizer, voices

from spintok.data.audio import read
from spintok.data.manifest import Utterance
from spintok.evaluate.noise_sources import NoiseSources
from spintok.evaluate.perturbations import CONDITIONS, Condition, apply
from spintok.evaluate.robustness import edit_distance, robustness, ued

UNITS = st.lists(st.integers(0, 5), max_size=20)


@given(UNITS.filter(bool), UNITS)
@settings(max_examples=50, deadline=None)
def test_distance_against_jiwer(first: list[int], second: list[int]) -> None:
    import jiwer

    found = jiwer.process_words(" ".join(map(str, first)), " ".join(map(str, second)))
    expected = found.substitutions + found.insertions + found.deletions
    assert edit_distance(first, second) == edit_distance(second, first) == expected
    # Word error rate is the same ratio.
    assert ued([first], [second], ["u"]).values()["ued_pooled"] == pytest.approx(100 * found.wer)


def test_both_aggregations() -> None:
    clean = [[1, 2, 3, 4], [5, 6], []]
    changed = [[1, 2, 3], [6, 5], [1]]
    values = ued(clean, changed, ["a", "b", "silent"], "test").values()
    assert values["ued_mean_test"] == pytest.approx((25 + 100) / 2)
    assert values["ued_pooled_test"] == pytest.approx(100 * 3 / 6)
    assert set(ued([[]], [[1]], ["a"]).values().values()) == {0.0}


@pytest.fixture(scope="module")
def utterance() -> Utterance:
    return voices()[0]


@pytest.fixture(scope="module")
def waveform(utterance: Utterance) -> Tensor:
    return read(utterance.path)


@pytest.fixture(scope="module")
def sources() -> NoiseSources:
    return NoiseSources(voices(), noise=[voices()[1].path], rooms=[voices()[2].path])


def changed(condition: Condition, waveform: Tensor, utterance: Utterance, sources: NoiseSources, seed: int) -> Tensor:
    """The perturbed waveform."""
    found = apply(condition, waveform, utterance, sources, seed)
    assert found is not None
    return found.waveform


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.name)
def test_every_condition_changes_speech_and_can_be_repeated(
    condition: Condition, utterance: Utterance, waveform: Tensor, sources: NoiseSources
) -> None:
    # Long enough for every condition.
    waveform = waveform.repeat(3)
    before = waveform.clone()
    found = changed(condition, waveform, utterance, sources, seed=1)
    assert torch.equal(before, waveform)
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    again = NoiseSources(voices(), [voices()[1].path], [voices()[2].path])
    assert torch.equal(found, changed(condition, waveform, utterance, again, 1))
    strength = condition.strength or 0.0
    expected = {
        "tempo": round(len(waveform) / (strength or 1)),
        "shift": len(waveform) - 160,
        "pad": len(waveform) + abs(strength) * 16_000,
        "crop": len(waveform) - strength * 16_000,
        "short": strength * 16_000,
    }
    assert len(found) == expected.get(condition.kind, len(waveform))
    assert len(found) != len(waveform) or not torch.allclose(found, waveform, atol=1e-3)


@pytest.mark.parametrize("kind", ["white", "babble", "noise"])
def test_noise_has_the_ratio_that_was_asked_for(
    kind: str, utterance: Utterance, waveform: Tensor, sources: NoiseSources
) -> None:
    noises = [changed(Condition(kind, snr), waveform, utterance, sources, 0) - waveform for snr in (20.0, 0.0)]
    for noise, snr in zip(noises, (20.0, 0.0), strict=True):
        ratio = 10 * torch.log10(waveform.square().sum() / noise.square().sum())
        assert float(ratio) == pytest.approx(snr, abs=0.01)
    # The same noise at both levels; another one with another seed.
    assert torch.corrcoef(torch.stack(noises))[0, 1] > 0.999
    other = changed(Condition(kind, 0.0), waveform, utterance, sources, 1) - waveform
    assert torch.corrcoef(torch.stack([noises[1], other]))[0, 1] < 0.9


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * 16000)) / 16000).astype(np.float32)


def test_band_and_gain_and_codec_keep_what_they_should(utterance: Utterance, sources: NoiseSources) -> None:
    low, high = torch.from_numpy(tone(1000)), torch.from_numpy(tone(6000))
    band = Condition("band", 4000.0)
    assert changed(band, low, utterance, sources, 0).square().sum() == pytest.approx(8000, rel=0.01)
    assert changed(band, high, utterance, sources, 0).square().sum() < 1
    louder = changed(Condition("gain", 20.0), low, utterance, sources, 0)
    assert torch.allclose(louder, 10 * low)
    for condition in (Condition("opus", 32.0), Condition("vorbis", 0.5)):
        coded = changed(condition, 0.5 * low, utterance, sources, 0)
        # In step with the original: a codec's delay would show as low correlation.
        assert torch.corrcoef(torch.stack([coded, low]))[0, 1] > 0.98


def test_robustness_of_a_tokenizer() -> None:
    conditions = [Condition("white", 20.0), Condition("white", 0.0), Condition("gain", 0.0), Condition("speaker")]
    seen: list[float] = []
    found = robustness(
        mfcc_tokenizer(),
        voices()[:3],
        conditions,
        NoiseSources(voices()),
        progress=lambda task, done, total, note="": seen.append(done),
    )
    values = found.values()
    assert len(values) == 12
    assert len(found.units) == 3
    assert seen == [1, 2, 3]
    assert values["ued_mean_gain_0"] == values["ued_pooled_gain_0"] == 0.0
    assert 0 < values["ued_pooled_white_20"] < values["ued_pooled_white_0"]
    assert values["ued_mean_speaker"] > 0
    again = robustness(mfcc_tokenizer(), voices()[:3], conditions, NoiseSources(voices()))
    assert again.values() == values


def test_wrong_conditions_are_refused(utterance: Utterance, waveform: Tensor) -> None:
    with pytest.raises(ValueError, match="unknown condition"):
        Condition("wind", 1.0)
    with pytest.raises(ValueError, match="white needs a strength"):
        Condition("white")
    with pytest.raises(ValueError, match="speaker takes no strength"):
        Condition("speaker", 1.0)
    with pytest.raises(ValueError, match="strength of shift must lie from 0 to 319"):
        Condition("shift", 320.0)
    with pytest.raises(ValueError, match="noise needs a folder"):
        apply(Condition("noise", 0.0), waveform, utterance, NoiseSources(), 0)
    assert NoiseSources().missing("babble") == "babble needs at least two utterances"
    assert NoiseSources().missing("room") is not None
    assert SPEECH.is_dir()
