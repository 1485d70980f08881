"""The synthesis, against its definition and against WORLD's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spintok.data.audio import read
from spintok.decoder.acoustics import (
    APERIODICITY,
    CEPSTRUM,
    FFT,
    LOG_F0,
    PARAMETERS,
    STEP,
    VOICING,
    cepstrum_of,
    envelope_basis,
)
from spintok.decoder.synthesis import Synthesizer, synthesize


def steady(vectors, *, level=-3.0, f0=100.0, voicing=1.0, aperiodicity=-60.0):
    """Parameters of a sound that does not change, with a flat envelope."""
    parameters = torch.zeros(vectors, PARAMETERS)
    parameters[:, 0] = level
    parameters[:, LOG_F0] = np.log(f0)
    parameters[:, VOICING] = voicing
    parameters[:, APERIODICITY] = aperiodicity
    return parameters


def test_a_steady_voice_has_its_harmonics_and_its_power() -> None:
    samples = synthesize(steady(400), 32_080)[8000:24_000].double()
    spectrum = torch.fft.rfft(samples * torch.hann_window(16_000, dtype=torch.float64)).abs()
    # Bins are 1 Hz apart: below 2 kHz, where nearly nothing is aperiodic, energy lies at the multiples of 100 Hz.
    harmonics = sum(float(spectrum[h - 2 : h + 3].square().sum()) for h in range(100, 2000, 100))
    assert harmonics > 0.99 * float(spectrum[50:1950].square().sum())
    assert samples.square().mean() == pytest.approx(np.exp(-6), rel=0.05)


def test_unvoiced_sound_is_white_through_a_flat_envelope() -> None:
    samples = synthesize(steady(2000, voicing=0.0), 160_000).double()
    assert samples.square().mean() == pytest.approx(np.exp(-6), rel=0.05)
    halves = torch.fft.rfft(samples).abs().square().tensor_split(4)
    powers = torch.stack([part.mean() for part in halves])
    assert (powers / powers.mean() - 1).abs().max() < 0.05


@pytest.mark.parametrize("f0", [1.0, 50.0, 123.4, 799.0, 5000.0])
def test_no_clipping_and_no_nan_at_any_pitch_and_level(f0) -> None:
    for level in (-100.0, 0.0, 100.0):
        samples = synthesize(steady(50, level=level, f0=f0), 4080)
        assert samples.isfinite().all()
        assert samples.abs().max() <= 1


def test_a_gliding_pitch_makes_no_clicks() -> None:
    # The number of harmonics changes 40 times during the glide.
    parameters = steady(400, level=-3.0)
    parameters[:, LOG_F0] = torch.linspace(np.log(100.0), np.log(200.0), 400)
    parameters[:, 1:4] = torch.tensor([1.5, 0.7, 0.3])
    samples = synthesize(parameters, 32_080)
    frames = samples[1600:30_400].view(-1, 320)
    high = torch.fft.rfft(frames * torch.hann_window(320))[:, 120:].abs().square().sum(1)
    assert high.max() < 4 * high.median()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 50), max_size=10))
def test_pieces_equal_the_whole(cuts) -> None:
    generator = torch.Generator().manual_seed(0)
    parameters = steady(50) + 0.3 * torch.randn(50, PARAMETERS, generator=generator)
    synthesizer = Synthesizer()
    pieces = [synthesizer.push(part) for part in parameters.tensor_split(sorted(cuts))]
    together = torch.cat([*pieces, synthesizer.close(4080)])
    # Sums of float32 in other orders; a step of 16-bit samples is 3e-5.
    torch.testing.assert_close(together, synthesize(parameters, 4080), rtol=0, atol=3e-5)


def test_the_filter_is_the_minimum_phase_of_its_envelope() -> None:
    # A one-pole filter has its minimum phase in closed form.
    pole = 1 / (1 - 0.9 * np.exp(-2j * np.pi * np.arange(FFT // 2 + 1) / FFT))
    cepstrum = torch.from_numpy(cepstrum_of(np.log(np.abs(pole))[None])).to(torch.complex64)
    found = (cepstrum @ envelope_basis())[0].exp().numpy()
    # 40 coefficients follow the peak at 0 Hz within 2 %.
    assert np.abs(found / pole - 1)[4:].max() < 0.02


def test_the_cepstrum_of_a_cosine_over_mel_is_one_coefficient() -> None:
    wanted = np.zeros((1, CEPSTRUM))
    wanted[0, 5] = 1.0
    found = cepstrum_of(wanted @ envelope_basis().real.double().numpy())
    np.testing.assert_allclose(found, wanted, atol=2e-3)


@pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")
def test_analysis_and_synthesis_keep_the_envelope_that_world_finds(speech) -> None:
    world = pytest.importorskip("pyworld")
    from spintok.train.world import analyze

    waveform = read(speech / "anna_tokens.flac")
    vectors = len(waveform) // STEP - 1
    parameters = analyze(waveform, vectors)
    again = analyze(synthesize(torch.from_numpy(parameters), len(waveform)), vectors)
    loud = parameters[:, 0] > parameters[:, 0].max() - 4
    # WORLD's own synthesis is the yardstick.
    samples = waveform.double().numpy()
    f0, times = world.dio(samples, 16_000)
    f0 = world.stonemask(samples, f0, times, 16_000)
    power, noise = world.cheaptrick(samples, f0, times, 16_000), world.d4c(samples, f0, times, 16_000)
    theirs = analyze(torch.from_numpy(world.synthesize(f0, power, noise, 16_000)), vectors)

    def distance(found):
        return float(np.abs(found - parameters)[loud, : CEPSTRUM // 2].mean())

    assert distance(again) < 1.2 * distance(theirs)
    both = loud & (parameters[:, VOICING] > 0) & (again[:, VOICING] > 0)
    assert both.sum() > 0.8 * (loud & (parameters[:, VOICING] > 0)).sum()
    assert np.abs(again - parameters)[both, LOG_F0].mean() < 0.02
