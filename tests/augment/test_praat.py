import sys
import textwrap

import numpy as np
import pytest
import torch

pytest.importorskip("parselmouth")

from spintok.augment import Perturbation, draw, perturb, utterance_rng
from spintok.augment.praat import Praat
from spintok.augment.praat_child import change_gender

RATE = 16000


def voice(f0, samples=RATE):
    """A buzz with all harmonics below 4 kHz."""
    phase = 2 * np.pi * np.cumsum(np.full(samples, f0)) / RATE
    wave = sum(np.cos(n * phase) / n for n in range(1, int(4000 / f0)))
    return torch.from_numpy(0.1 * wave).float()


def harmonic(wave):
    """The frequency of the strongest line below 500 Hz."""
    spectrum = np.abs(np.fft.rfft(wave[4000:12000].numpy() * np.hanning(8000), 1 << 17))
    return np.argmax(spectrum[: round(500 / RATE * (1 << 17))]) * RATE / (1 << 17)


def test_same_contract_as_ours():
    waves = torch.nn.utils.rnn.pad_sequence([voice(120.0), torch.zeros(300), voice(200.0, 9001)], batch_first=True)
    lengths = torch.tensor([RATE, 300, 9001])
    drawn = [draw(utterance_rng(0, 0, str(i))) for i in range(3)]
    with Praat() as praat:
        new = praat.perturb(waves, lengths, drawn)
        assert torch.equal(praat.perturb(waves, lengths, drawn), new)
    assert new.shape == waves.shape
    assert new.dtype == torch.float32
    assert new.abs().max() <= 1
    assert not new[1].abs().max() > 1e-6
    assert not new[2, 9001:].any()


def test_pitch_as_asked_and_as_ours():
    wave, changes = voice(150.0), Perturbation(median=1.4)
    with Praat() as praat:
        theirs = praat.perturb(wave[None], torch.tensor([RATE]), [changes])[0]
    assert harmonic(theirs) == pytest.approx(210, rel=0.01)
    assert harmonic(perturb(wave[None], torch.tensor([RATE]), [changes])[0]) == pytest.approx(210, rel=0.01)


def test_pitch_that_would_reach_zero_returns():
    half = RATE // 2
    wave = np.concatenate([voice(100.0, half), voice(300.0, half), voice(300.0, half)]).astype(np.float64)
    new = change_gender(wave, 1.0, 0.5, 1.6)
    assert new.shape == wave.shape
    assert np.isfinite(new).all()


def test_a_hang_is_ended(tmp_path, monkeypatch):
    slow = tmp_path / "slow.py"
    slow.write_text("import time; time.sleep(60)")
    monkeypatch.setattr("spintok.augment.praat.COMMAND", (sys.executable, str(slow)))
    with Praat(timeout=0.3) as praat, pytest.raises(TimeoutError, match="did not return within"):
        praat.perturb(voice(100.0)[None], torch.tensor([RATE]), [Perturbation()])


def test_praats_refusal_is_an_error_and_the_next_request_works(tmp_path, monkeypatch):
    child = tmp_path / "refuses.py"
    child.write_text(
        textwrap.dedent("""
            import sys
            from spintok.augment import praat_child
            good = praat_child.change_gender
            def change_gender(samples, formant, median, spread):
                if median > 1.5:
                    raise RuntimeError("not this one")
                return good(samples, formant, median, spread)
            praat_child.change_gender = change_gender
            praat_child.serve(sys.stdin.buffer, sys.stdout.buffer)
        """)
    )
    monkeypatch.setattr("spintok.augment.praat.COMMAND", (sys.executable, str(child)))
    wave, lengths = voice(100.0)[None], torch.tensor([RATE])
    with Praat() as praat:
        with pytest.raises(ValueError, match="not this one"):
            praat.perturb(wave, lengths, [Perturbation(median=1.8)])
        assert praat.perturb(wave, lengths, [Perturbation(median=1.2)]).any()


def test_a_dead_child_is_an_error(monkeypatch):
    monkeypatch.setattr(
        "spintok.augment.praat.COMMAND", (sys.executable, "-c", "import sys; sys.stdin.buffer.read(32)")
    )
    with Praat() as praat, pytest.raises(RuntimeError, match="process ended"):
        praat.perturb(voice(100.0)[None], torch.tensor([RATE]), [Perturbation()])
