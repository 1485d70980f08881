"""Conditions: which frames of the perturbed speech correspond to which of the original."""

import numpy as np
import pytest
import torch
from voices import mfcc_tokenizer, voices

from spintok.data.audio import read
from spintok.data.labels.alignments import Interval
from spintok.evaluate.noise_sources import NoiseSources
from spintok.evaluate.perturbations import Condition, Perturbed, apply
from spintok.evaluate.robustness import robustness
from spintok.frames import SAMPLE_RATE, num_frames

WAVE = torch.arange(4 * SAMPLE_RATE, dtype=torch.float32)
UTTERANCE = voices()[0]


def perturbed(kind: str, strength: float, wave: torch.Tensor = WAVE) -> Perturbed | None:
    return apply(Condition(kind, strength), wave, UTTERANCE, NoiseSources(), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "strength"), [("pad", 2.0), ("pad", -0.5), ("crop", 1.0), ("short", 0.4), ("short", 3.2), ("dc", 0.05)]
)
def test_corresponding_frames_read_the_same_samples(kind: str, strength: float) -> None:
    found = perturbed(kind, strength)
    assert found is not None
    frames = np.arange(num_frames(len(WAVE))), np.arange(num_frames(len(found.waveform)))
    before, after = found.compared(*frames)
    assert len(before) == len(after) > 0
    offset = strength if kind == "dc" else 0.0
    for i, j in zip(before.tolist(), after.tolist(), strict=True):
        assert torch.allclose(found.waveform[320 * j : 320 * j + 400], WAVE[320 * i : 320 * i + 400] + offset)
    lengths = {"pad": len(WAVE) + abs(strength) * SAMPLE_RATE, "crop": len(WAVE) - SAMPLE_RATE, "dc": len(WAVE)}
    assert len(found.waveform) == lengths.get(kind, strength * SAMPLE_RATE)
    expected = {"crop": num_frames(len(WAVE)) - 50, "short": num_frames(len(found.waveform))}
    assert len(before) == expected.get(kind, num_frames(len(WAVE)))
    assert found.times(2).tolist() == pytest.approx([0.0125 + 0.02 * before[0], 0.0125 + 0.02 * (before[0] + 1)])
    assert found.aligned


def test_speech_that_is_too_short_is_left_out() -> None:
    second = WAVE[:SAMPLE_RATE]
    assert perturbed("short", 1.6, second) is None
    assert perturbed("crop", 1.0, second) is None
    found = robustness(
        mfcc_tokenizer(), voices()[:2], [Condition("short", 50.0), Condition("gain", 0.0)], NoiseSources()
    ).values()
    assert found["ued_pooled_short_50"] == 0.0
    assert found["frames_equal_gain_0"] == 100.0


def test_pieces_are_drawn_from_everywhere_and_again_the_same() -> None:
    starts = set()
    for seed in range(30):
        found = apply(Condition("short", 0.4), WAVE, UTTERANCE, NoiseSources(), seed)
        again = apply(Condition("short", 0.4), WAVE, UTTERANCE, NoiseSources(), seed)
        assert found is not None
        assert again is not None
        assert torch.equal(found.waveform, again.waveform)
        starts.add(int(found.waveform[0]) // 320)
    assert len(starts) > 20
    assert min(starts) < 45
    assert max(starts) > 135


@pytest.mark.parametrize(("kind", "strength"), [("pad", 0.03), ("crop", 0.01), ("short", 0.0), ("dc", 2.0)])
def test_wrong_strengths_are_refused(kind: str, strength: float) -> None:
    with pytest.raises(ValueError, match=kind):
        Condition(kind, strength)  # type: ignore[arg-type]


def test_mfcc_do_not_depend_on_what_surrounds_the_speech() -> None:
    conditions = [Condition("pad", 2.0), Condition("pad", -0.5), Condition("crop", 0.5)]
    values = robustness(mfcc_tokenizer(), voices()[:3], conditions, NoiseSources()).values()
    for condition in conditions:
        assert values[f"frames_equal_{condition.name}"] == 100.0
        assert values[f"ued_pooled_{condition.name}"] == 0.0


def test_edits_in_silence_do_not_count_in_speech() -> None:
    """Zeros before the speech are silence, and white noise fills the pauses with other codes."""
    utterances = voices()[:3]
    lengths = {u.key: len(read(u.path)) / SAMPLE_RATE for u in utterances}
    # Everything is labelled silence but a stretch in the middle.
    phones = {
        key: [Interval("SIL", 0.0, 0.8), Interval("AA", 0.8, 1.2), Interval("sp", 1.2, seconds)]
        for key, seconds in lengths.items()
    }
    conditions = [Condition("white", 10.0), Condition("tempo", 0.9), Condition("gain", 0.0)]
    tokenizer = mfcc_tokenizer()
    found = robustness(tokenizer, utterances, conditions, NoiseSources(), phones=phones)
    values = found.values()
    for name in ("ued_pooled", "ued_speech_pooled", "ued_mean", "ued_speech_mean"):
        assert values[f"{name}_gain_0"] == 0.0
        assert values[f"{name}_white_10"] > 0
    # The denominators are the tokens of 20 frames, far fewer than those of the whole.
    spoken = np.asarray(found.parts["ued_speech_pooled_white_10"][1])
    whole = np.asarray(found.parts["ued_pooled_white_10"][1])
    assert (spoken <= 20).all()
    assert (spoken < whole / 2).all()
    silent = {key: [Interval("SIL", 0.0, seconds)] for key, seconds in lengths.items()}
    values = robustness(tokenizer, utterances, conditions, NoiseSources(), phones=silent).values()
    assert values["ued_speech_pooled_white_10"] == 0.0
    assert values["ued_pooled_white_10"] > 0
    assert "frames_equal_tempo_0.9" not in values
    assert "ued_speech_mean_white_10" not in robustness(tokenizer, utterances, conditions, NoiseSources()).values()


def test_times_of_slower_and_later_speech() -> None:
    slow = Perturbed(WAVE, tempo=0.9)
    # Frame 100 of the slower speech is at 2.0125 s, where the original was at 0.9 of that.
    assert slow.times(101)[100] == pytest.approx(0.9 * 2.0125)
    late = perturbed("shift", 160.0)
    assert late is not None
    assert late.times(1)[0] == pytest.approx(0.0125 + 0.01)
    assert not slow.aligned
    assert not late.aligned
