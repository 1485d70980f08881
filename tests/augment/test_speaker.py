import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from spintok_kernels.perturb import cpu as perturb_cpu
from spintok_kernels.perturb import decimate

from spintok.augment import Perturbation, PerturbationStrength, draw, perturb, utterance_rng
from spintok.augment.pitch import track_pitch
from spintok.augment.psola import resynthesize

RATE = 16000
FORMANTS = ((700, 80), (1220, 90), (2600, 120))


@pytest.fixture(params=["torch", "compiled"])
def core(request, monkeypatch):
    """Everything holds for both; the cores of other instruction sets are judged beside the kernels."""
    if request.param == "torch":
        monkeypatch.setenv(perturb_cpu.PERTURB.variable, "torch")
    elif perturb_cpu.PERTURB.choose()[0] == "torch":
        pytest.skip("no compiled core here")
    return request.param


def vowel(f0, formants=FORMANTS, seed=0):
    """Pulses at the instants where the phase of ``f0`` (hertz, a sample each) is whole, through
    resonators."""
    phase = np.cumsum(f0 / RATE)
    wave = np.diff(np.floor(phase), prepend=0.0)
    for frequency, bandwidth in formants:
        radius = np.exp(-np.pi * bandwidth / RATE)
        wave = lfilter([1], [1, -2 * radius * np.cos(2 * np.pi * frequency / RATE), radius**2], wave)
    wave = wave / np.abs(wave).max() / 2
    wave += 1e-4 * np.random.default_rng(seed).standard_normal(len(wave))
    return torch.from_numpy(wave).float()


def one(wave, **changes):
    return perturb(wave[None], torch.tensor([len(wave)]), [replace(Perturbation(), **changes)])[0]


def period(wave, low, high):
    """F0 of a stationary stretch in hertz: the highest peak of its autocorrelation between two
    frequencies."""
    wave = wave.double().numpy()
    size = 8 * len(wave)
    # The zeros appended to the power spectrum interpolate the autocorrelation eightfold.
    power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 2 * len(wave))) ** 2
    correlation = np.fft.irfft(power, 2 * size)
    first, last = round(8 * RATE / high), round(8 * RATE / low)
    return 8 * RATE / (first + np.argmax(correlation[first:last]))


def envelope_peaks(wave, guesses):
    """The frequencies near ``guesses`` where a pre-emphasised LPC envelope of order 18 peaks."""
    x = np.diff(wave.double().numpy()) * np.hanning(len(wave) - 1)
    r = np.fft.irfft(np.abs(np.fft.rfft(x, 2 * len(x))) ** 2)[:19]
    matrix = r[np.abs(np.subtract.outer(np.arange(18), np.arange(18)))]
    matrix[np.diag_indices(18)] *= 1 + 1e-6
    coefficients = np.linalg.solve(matrix, r[1:])
    roots = np.roots(np.concatenate([[1], -coefficients]))
    roots = roots[(roots.imag > 0) & (np.abs(roots) > 0.85)]
    found = np.angle(roots) * RATE / (2 * np.pi)
    return [found[np.argmin(np.abs(np.log(found / guess)))] for guess in guesses]


class TestDraw:
    def draws(self, **strength):
        return [draw(utterance_rng(0, 0, str(i)), PerturbationStrength(**strength)) for i in range(2000)]

    @pytest.mark.parametrize(("name", "bound"), [("formant", 1.4), ("median", 2.0), ("spread", 1.5)])
    def test_ratios_are_uniform_and_inverted_half_the_time(self, name, bound):
        ratios = np.array([getattr(p, name) for p in self.draws()])
        inverted = ratios < 1
        # 2000 fair coins: four standard deviations are 0.045.
        assert inverted.mean() == pytest.approx(0.5, abs=0.045)
        sizes = (np.where(inverted, 1 / ratios, ratios) - 1) / (bound - 1)
        assert sizes.min() >= 0
        assert sizes.max() <= 1
        # The largest gap between the empirical and the uniform distribution, at the 0.1 % level.
        gap = np.abs(np.sort(sizes) - (np.arange(2000) + 0.5) / 2000).max()
        assert gap < 1.95 / np.sqrt(2000)

    def test_equalizer(self):
        drawn = self.draws()
        gains, qs = np.array([p.gains for p in drawn]), np.array([p.qs for p in drawn])
        for sizes in ((gains + 12) / 24, np.log(qs / 2) / np.log(2.5)):
            assert sizes.shape == (2000, 10)
            assert sizes.min() >= 0
            assert sizes.max() <= 1
            assert sizes.mean(0) == pytest.approx(np.full(10, 0.5), abs=0.03)

    def test_strength(self):
        drawn = self.draws(formant=1.0, median=1.2, spread=1.0, gain_db=0.0)
        assert {(p.formant, p.spread, p.gains) for p in drawn} == {(1.0, 1.0, (0.0,) * 10)}
        assert max(p.median for p in drawn) <= 1.2

    def test_depends_on_seed_epoch_and_utterance(self):
        drawn = {
            draw(utterance_rng(*key)) for key in [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"), (0, 11, "a")]
        }
        assert len(drawn) == 5

    def test_same_in_another_process(self):
        code = "from spintok.augment import *; print(repr(draw(utterance_rng(3, 14, 'so762-1'))))"
        # With other hashes of strings than here.
        seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
        command, environment = [sys.executable, "-c", code], {"PYTHONHASHSEED": seed}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == repr(draw(utterance_rng(3, 14, "so762-1"))) + "\n"


@pytest.mark.usefixtures("core")
class TestPitch:
    @pytest.mark.parametrize("f0", [90.0, 140.0, 230.0, 330.0])
    @pytest.mark.parametrize("ratio", [0.5, 0.75, 1.0, 1.3, 1.9])
    def test_median_ratio(self, f0, ratio):
        new = one(vowel(np.full(RATE, f0)), median=ratio)
        asked = f0 * ratio
        assert period(new[4000:12000], 0.6 * asked, 1.6 * asked) == pytest.approx(asked, rel=0.01)

    @pytest.mark.parametrize("spread", [1 / 1.5, 1.0, 1.5])
    def test_range_ratio_and_old_time(self, spread):
        levels = 120.0, 150.0, 180.0
        new = one(vowel(np.repeat(levels, RATE // 2)), median=1.2, spread=spread)
        for place, level in enumerate(levels):
            middle = new[place * 8000 + 2000 : place * 8000 + 6000]
            asked = 1.2 * (150 + (level - 150) * spread)
            assert period(middle, 0.7 * asked, 1.4 * asked) == pytest.approx(asked, rel=0.015)

    def test_grains_hold_the_pulses_wherever_they_are(self):
        wave = vowel(np.full(RATE, 110.0), ((900, 300),))
        # At 1.9 times the pitch a grain is one old period wide: cut between two pulses, it would lose them.
        levels = [one(wave[start:], median=1.9)[4000:12000].std() for start in range(0, 145, 29)]
        assert max(levels) < 1.1 * min(levels)

    def test_pitch_survives_the_formants(self):
        for formant in (0.72, 1.38):
            new = one(vowel(np.full(RATE, 130.0)), formant=formant)
            assert period(new[4000:12000], 80, 210) == pytest.approx(130, rel=0.01)


@pytest.mark.usefixtures("core")
class TestFormants:
    @pytest.mark.parametrize("ratio", [1 / 1.4, 1 / 1.15, 1.0, 1.15, 1.4])
    @pytest.mark.parametrize("median", [0.8, 1.0, 1.25])
    def test_formant_ratio(self, ratio, median):
        f0 = 100 + 10 * np.sin(2 * np.pi * 3 * np.arange(RATE) / RATE)
        new = one(vowel(f0), formant=ratio, median=median)
        asked = [(frequency * ratio, bandwidth * ratio) for frequency, bandwidth in FORMANTS]
        # The vowel itself with the asked formants and pitch: LPC is drawn to the harmonics in both alike.
        truth = vowel(f0 * median, asked)
        guesses = [frequency for frequency, _ in asked]
        peaks = [envelope_peaks(wave[4000:12000], guesses) for wave in (new, truth)]
        assert peaks[0] == pytest.approx(peaks[1], rel=0.03)


@pytest.mark.usefixtures("core")
class TestContract:
    @pytest.mark.parametrize("samples", [1, 79, 160, 399, 400, 16001])
    def test_exact_length_and_range(self, samples):
        rng = np.random.default_rng(samples)
        waves = torch.from_numpy(rng.uniform(-1, 1, (2, samples))).float()
        new = perturb(waves, torch.tensor([samples, samples // 2]), [draw(rng) for _ in range(2)])
        assert new.shape == waves.shape
        assert new.dtype == torch.float32
        assert new.isfinite().all()
        assert new.abs().max() <= 1
        assert not new[1, samples // 2 :].any()

    def test_the_widest_ratios(self):
        # A low voice at a quarter of its pitch, read at 4 times the speed: grains end far from where they begin.
        new = one(vowel(np.full(8000, 70.0)), formant=4.0, median=0.25, spread=4.0)
        assert new.isfinite().all()
        assert new.abs().max() > 0.05

    def test_parameters_of_numpy_are_as_good(self):
        wave, plain = vowel(np.full(4000, 120.0)), draw(utterance_rng(0, 0, "a"))
        numpy = replace(plain, formant=np.float64(plain.formant), gains=tuple(np.array(plain.gains)))
        length = torch.tensor([4000])
        assert torch.equal(perturb(wave[None], length, [numpy]), perturb(wave[None], length, [plain]))

    def test_empty(self):
        none = torch.zeros(0, dtype=torch.long)
        assert perturb(torch.zeros(0, 5), none, []).shape == (0, 5)
        assert perturb(torch.zeros(1, 0), torch.tensor([0]), [Perturbation()]).shape == (1, 0)

    def test_depends_neither_on_the_batch_nor_on_the_padding(self):
        waves = [vowel(np.linspace(a, b, n)) for a, b, n in ((90, 140, 9000), (300, 220, 16001), (150, 150, 4321))]
        lengths = torch.tensor([len(wave) for wave in waves])
        drawn = [draw(utterance_rng(0, 0, str(i))) for i in range(3)]
        padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
        before = padded.clone()
        together = perturb(padded, lengths, drawn)
        assert torch.equal(padded, before)
        dirty = padded.clone()
        dirty[2, 4321:] = 0.7
        assert torch.equal(perturb(dirty, lengths, drawn), together)
        for row, wave in enumerate(waves):
            alone = perturb(wave[None], lengths[row : row + 1], drawn[row : row + 1])[0]
            # float32 rounding where the equalizer amplifies; a grain moved by one sample would show at 1e-2.
            torch.testing.assert_close(together[row, : len(wave)], alone, atol=1e-4, rtol=0)

    def test_more_than_one_pass_works_on(self, monkeypatch):
        waves = torch.stack([vowel(np.full(4000, f0)) for f0 in (110.0, 160.0, 210.0)])
        lengths, drawn = torch.full((3,), 4000), [draw(utterance_rng(0, 0, str(i))) for i in range(3)]
        whole = perturb(waves, lengths, drawn)
        for limit in ("TORCH_SAMPLES", "COMPILED_SAMPLES"):
            monkeypatch.setattr(f"spintok_kernels.perturb.op.{limit}", 8000)
        torch.testing.assert_close(perturb(waves, lengths, drawn), whole, atol=1e-4, rtol=0)

    def test_silence_stays_silent(self):
        assert not one(torch.zeros(5000), formant=1.2, median=1.5, gains=(12.0,) * 10).any()
        wave = vowel(np.full(RATE, 150.0))
        wave[6000:12000] = 0
        new = one(wave, formant=1.3, median=0.6)
        # What is left is the rounding of the equalizer's FFT.
        assert new[6900:11100].abs().max() < 1e-6
        assert new[1000:5000].std() > 0.3 * wave[1000:5000].std()

    @pytest.mark.parametrize("signal", ["noise", "impulse", "direct current", "square", "tiny"])
    def test_no_nan_whatever_comes(self, signal):
        wave = torch.zeros(4000)
        match signal:
            case "noise":
                wave.normal_(generator=torch.Generator().manual_seed(0))
            case "impulse":
                wave[2000] = 1
            case "direct current":
                wave += 0.5
            case "square":
                wave = torch.sign(torch.sin(torch.arange(4000.0)))
            case "tiny":
                wave.normal_(generator=torch.Generator().manual_seed(0)).mul_(1e-30)
        for key in range(5):
            drawn = draw(utterance_rng(key, 0, signal))
            assert perturb(wave[None], torch.tensor([4000]), [drawn]).isfinite().all()

    def test_noise_keeps_its_level_and_place(self):
        noise = 0.1 * torch.randn(RATE, generator=torch.Generator().manual_seed(1))
        noise[:8000] *= 0.1
        for formant in (0.8, 1.0, 1.25):
            new = one(noise, formant=formant)
            # A lower formant ratio leaves the top of the band empty, so less than the whole power remains.
            for part in (slice(0, 7800), slice(8200, None)):
                decibels = 20 * torch.log10(new[part].std() / noise[part].std()).item()
                assert -1.8 < decibels < 0.5

    def test_noise_does_not_hum(self):
        noise = 0.1 * torch.randn(10 * RATE, generator=torch.Generator().manual_seed(2))
        for formant in (0.8, 1.03, 1.3):
            # Grains of noise are 160 samples apart; amplitudes that add like a voice's would swing by 3 dB.
            places = one(noise, formant=formant).square().view(1000, 16, 10).mean((0, 2))
            assert 10 * torch.log10(places.max() / places.min()) < 0.8

    def test_ratios_of_one_are_near_the_identity(self):
        wave = vowel(100 + 20 * np.sin(2 * np.pi * np.arange(RATE) / RATE))
        new = one(wave)
        spectra = [
            torch.stft(w, 400, 160, window=torch.hann_window(400), return_complex=True).abs()[:, 4:-4]
            for w in (wave, new)
        ]
        # Where there is energy: the noise floor between the harmonics is free.
        heard = spectra[0] > spectra[0].amax() / 100
        assert (spectra[1][heard] / spectra[0][heard]).log10().mul(20).abs().median() < 1

    def test_global_random_state_is_untouched(self):
        state = torch.get_rng_state()
        one(vowel(np.full(2000, 100.0)), median=1.5)
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(perturb_cpu.PERTURB.found[0] is None, reason="no compiled core here")
class TestCompiled:
    """The compiled core does as torch does, stage by stage: in a chain the pitch's last digits add up to
    time."""

    def batch(self):
        glides = ((90, 140, 9000), (300, 220, 16000), (150, 150, 4321), (110, 100, 16000))
        waves = [vowel(np.linspace(a, b, n), seed=n) for a, b, n in glides]
        # Voice, noise and silence, and voice again.
        noise = torch.randn(4000, generator=torch.Generator().manual_seed(0))
        waves[1][4000:8000] = 0.05 * noise
        waves[3][6000:9000] = 0
        return torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), torch.tensor([len(w) for w in waves])

    def both(self, monkeypatch, call):
        results = [call()]
        monkeypatch.setenv(perturb_cpu.PERTURB.variable, "torch")
        return [*results, call()]

    def test_pitch(self, monkeypatch):
        waves, lengths = self.batch()
        lows = self.both(monkeypatch, lambda: decimate(waves, lengths))
        torch.testing.assert_close(*lows, atol=1e-6, rtol=0)
        monkeypatch.undo()
        ours, torchs = self.both(monkeypatch, lambda: track_pitch(lows[1], lengths))
        assert torch.equal(ours.voiced, torchs.voiced)
        assert 0.5 < ours.voiced.float().mean() < 0.8
        # The parabola through three strengths, off by 1e-6 each, over a bend of 0.01 or more.
        kept = ours.voiced
        torch.testing.assert_close(ours.f0[kept], torchs.f0[kept], atol=0, rtol=1e-4)
        torch.testing.assert_close(ours.median, torchs.median, atol=0, rtol=1e-4)

    @pytest.mark.parametrize("formant", [0.72, 1.0, 1.4, 3.0])
    def test_resynthesis(self, monkeypatch, formant):
        waves, lengths = self.batch()
        low = decimate(waves, lengths)
        track = track_pitch(low, lengths)
        ratios = (torch.full((4,), formant), torch.tensor([0.6, 1.0, 1.3, 1.9]), torch.tensor([1.0, 1.4, 0.7, 1.0]))
        results = self.both(monkeypatch, lambda: resynthesize(waves, lengths, low, track, *ratios))
        # Past the end torch's grains fade, what they are is left to the caller.
        for ours, torchs, length in zip(*results, lengths, strict=True):
            # torch reads at float32 positions of up to 2048 samples, 6e-5 off, on slopes of up to 0.5.
            torch.testing.assert_close(ours[:length], torchs[:length], atol=1e-4, rtol=0)

    def test_whole(self, monkeypatch):
        waves, lengths = self.batch()
        drawn = [draw(utterance_rng(0, 0, str(i))) for i in range(4)]
        ours, torchs = self.both(monkeypatch, lambda: perturb(waves, lengths, drawn))
        # Some 200 periods whose length is off by a millionth.
        torch.testing.assert_close(ours, torchs, atol=2e-3, rtol=0)

    def test_strides_and_small_integers_are_free(self):
        waves, lengths = self.batch()
        drawn = [draw(utterance_rng(0, 0, str(i))) for i in range(4)]
        strided = torch.stack([waves, waves], -1)[..., 0]
        results = perturb(waves, lengths, drawn), perturb(strided, torch.stack([lengths] * 2, 1).int()[:, 0], drawn)
        assert torch.equal(*results)


class TestErrors:
    def test_batch(self):
        waves, lengths = torch.zeros(2, 10), torch.tensor([10, 10])
        identity = [Perturbation()] * 2
        for arguments, message in (
            ((waves.double(), lengths, identity), "float32"),
            ((waves[0], lengths, identity), r"\(B, S\)"),
            ((waves, lengths[:1], identity), "lengths must be"),
            ((waves, lengths.float(), identity), "integers"),
            ((waves, lengths + 1, identity), "from 0 to 10"),
            ((waves, lengths, identity[:1]), "2 utterances, got 1"),
        ):
            with pytest.raises(ValueError, match=message):
                perturb(*arguments)

    def test_parameters(self):
        for changes in ({"formant": 0.0}, {"median": float("nan")}, {"gains": (1.0,)}, {"qs": (9.0,) * 10}):
            with pytest.raises(ValueError, match="got"):
                Perturbation(**changes)
        for changes in ({"spread": 0.5}, {"gain_db": -1.0}, {"q_min": 3.0, "q_max": 2.0}):
            with pytest.raises(ValueError, match="got"):
                PerturbationStrength(**changes)


@pytest.mark.requires_gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_does_as_the_cpu():
    waves = torch.stack([vowel(np.linspace(a, b, RATE)) for a, b in ((90, 140), (300, 220))])
    lengths, drawn = torch.tensor([RATE, RATE - 1000]), [draw(utterance_rng(0, 0, str(i))) for i in range(2)]
    there = perturb(waves.cuda(), lengths.cuda(), drawn)
    torch.testing.assert_close(there.cpu(), perturb(waves, lengths, drawn), atol=1e-3, rtol=0)
