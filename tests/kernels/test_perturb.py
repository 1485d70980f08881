"""The compiled passes of speaker perturbation against float64 written from their definitions."""

import numpy as np
import pytest
import torch
from scipy.signal import sosfilt
from spintok_kernels import backends
from spintok_kernels.native import LEVELS
from spintok_kernels.perturb import BANDS, samples_per_call
from spintok_kernels.perturb import cpu as perturb_cpu

WINDOW = np.hanning(161)[:160]
RNG = np.random.default_rng


def _runnable() -> list[str]:
    library, _ = perturb_cpu.PERTURB.found
    return list(LEVELS[: library.spintok_perturb_isa() + 1]) if library else []


pytestmark = pytest.mark.skipif(not _runnable(), reason="no compiled core here")


@pytest.fixture(params=_runnable())
def core(request, monkeypatch):
    monkeypatch.setenv(perturb_cpu.PERTURB.variable, request.param)
    return request.param


def single(x) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x, np.float32))


@pytest.mark.parametrize("samples", [1, 159, 160, 2400, 5003])
def test_decimate(core, samples):
    rng = RNG(samples)
    waves, kernel = rng.standard_normal((3, samples)), rng.standard_normal(49)
    lengths = [samples, samples // 2, 0]
    low = perturb_cpu.decimate(single(waves), torch.tensor(lengths), single(kernel))
    assert low.shape == (3, -(-samples // 160) * 40)
    for row, length in enumerate(lengths):
        heard = np.zeros(4 * low.shape[1] + 24)
        heard[:length] = waves[row, :length]
        truth = np.correlate(np.pad(heard, 24), kernel, "valid")[: 4 * low.shape[1] : 4]
        # 49 products of some 1 each, rounded at every step.
        np.testing.assert_allclose(low[row], truth, atol=49 * 2**-23)


def lag_table(lags):
    """(64, 96): from the first 64 bins to the autocorrelation over the window's, then to the energy."""
    waves = 2 * np.cos(2 * np.pi / 256 * np.arange(129)[:, None] * np.append(lags, 0))
    waves[0] /= 2
    window = np.abs(np.fft.rfft(WINDOW, 256)) ** 2 @ waves
    return np.pad(waves[:64] * window[-1] / window, ((0, 0), (0, 14)))


@pytest.mark.parametrize("frames", [1, 5, 6, 31])
def test_candidates(core, frames):
    low = RNG(frames).standard_normal((2, 40 * frames)) * [[1.0], [1e-3]]
    low[0, : 20 * frames] = 0
    lags = np.geomspace(66, 7, 81)
    table = lag_table(lags)
    angle = 2 * np.pi / 256 * np.arange(80)[:, None] * np.arange(64)
    halves = (wave(angle) * WINDOW[80:, None] for wave in (np.cos, np.sin))
    strengths, energy = perturb_cpu.candidates(single(low), *map(single, halves), single(table), 0.01)
    assert strengths.shape == (2, frames, 96)
    padded = np.pad(low, ((0, 0), (60, 60)))
    for row in range(2):
        for frame in range(frames):
            x = padded[row, 40 * frame :][:160]
            power = np.abs(np.fft.rfft((x - x.mean()) * WINDOW, 256)[:64]) ** 2
            truth = power @ table
            np.testing.assert_allclose(energy[row, frame], truth[81], rtol=1e-5)
            if truth[81] > 0:
                want = truth[:81] / truth[81] + 0.01 * np.arange(81)
                # Two sums of 80 and one of 64 terms, in all some 1e-6 of the energy.
                np.testing.assert_allclose(strengths[row, frame, :81], want, atol=1e-5)
            else:
                np.testing.assert_allclose(strengths[row, frame, :81], 0.01 * np.arange(81), atol=1e-6)


def test_choose(core):
    rng = RNG(0)
    strengths = single(rng.uniform(-1, 1, (40, 3, 96)))
    # Ties, of which the first counts.
    strengths[:, 1] = (strengths[:, 1] * 3).round() / 4
    lowest = rng.uniform(-30, 60, 40)
    highest = lowest + rng.uniform(1, 50, 40)
    lowest[0], highest[0] = 0, 80
    highest = np.maximum(highest, 1)
    best, place, offset = perturb_cpu.choose(strengths, single(lowest), single(highest))
    number = np.arange(81)
    for row in range(40):
        inside = (number >= np.float32(lowest[row])) & (number <= np.float32(highest[row]))
        for frame in range(3):
            x = np.where(inside, strengths[row, frame, :81], -1)
            top = int(x.argmax())
            assert place[row, frame] == top
            assert best[row, frame] == x[top]
            left, middle, right = x[min(max(top, 1), 79) - 1 :][:3]
            bend = min(left - 2 * middle + right, -1e-6)
            np.testing.assert_allclose(offset[row, frame], np.clip((left - right) / 2 / bend, -0.5, 0.5), atol=1e-4)


def laid_down(wave, low, old, new, voiced, narrowing, overlap, speed, kernels, smoother):
    """Overlap-add in float64, sample by sample."""
    cells = len(old)
    begin = np.concatenate([[0], np.cumsum(80 * old)])[:-1]
    pulses = np.maximum(low * np.sign((low**3).sum()), 0).reshape(cells, 20) ** 2
    turns = begin[:, None] + old[:, None] * np.arange(0, 80, 4)
    fundamental = np.convolve((pulses * np.exp(2j * np.pi * turns)).sum(1), smoother)[4 : 4 + cells]
    old_phase = begin - np.angle(fundamental) / (2 * np.pi)
    new = np.append(new, [1 / 160] * 4)
    phase = np.concatenate([[0], np.cumsum(80 * new)])
    moments, sources = [0.0], [0.0]
    for mark in range(1, int(phase[-1]) + 1):
        cell = np.searchsorted(phase, mark) - 1
        moment = (mark - phase[cell]) / new[cell]
        shift = 0
        if cell < cells and voiced[cell]:
            cycles = old_phase[cell] + old[cell] * moment
            shift = (np.round(cycles) - cycles) / old[cell]
        moments.append(80 * cell + moment)
        sources.append(moments[-1] + shift)
    padded = np.pad(wave, 3000)

    def read(grain, n):
        position = sources[grain] + speed * (n - moments[grain])
        whole = int(np.floor(position))
        return (position - whole) ** np.arange(4) @ kernels @ padded[3000 + whole - 8 :][:18]

    def fade(x):
        x = min(x, 1)
        return 1 - 3 * x**2 + 2 * x**3

    out = np.zeros(len(wave))
    for n in range(len(wave)):
        cell, way = n // 80, (n % 80 + 0.5) / 80
        cycles = phase[cell] + new[cell] * (n % 80)
        grain = int(cycles)
        width = narrowing[cell] @ [1 - way, way]
        fall, rise = fade((cycles - grain) * width), fade((1 - cycles + grain) * width)
        mixed = fall * read(grain, n) + rise * read(grain + 1, n)
        out[n] = mixed / np.sqrt(1 + overlap[cell] @ [1 - way, way] * fall * rise)
    return out


# At 1.3 times the speed AVX-512 reads neighbours, at 2.5 it gathers; 7,000 samples take more than one chunk.
@pytest.mark.parametrize(("samples", "speed"), [(1600, 0.7), (960, 1.3), (1600, 2.5), (7000, 1.1)])
def test_overlap_add(core, samples, speed):
    rng = RNG(samples)
    frames = -(-samples // 160)
    cells, lengths = 2 * frames, [samples, samples - 500]
    # Smooth to the sample, so that a rounded position does not matter.
    times = np.arange(samples)
    waves = np.stack([np.sin(times / 9) + 0.3 * np.sin(times / 2.1), np.sin(times / 13) ** 3])
    low = np.stack([np.sin(np.arange(20 * cells) / 7) + 0.2, np.sin(np.arange(20 * cells) / 5) ** 3 - 0.1])
    old, new = rng.uniform(70, 300, (2, cells)) / 16000, rng.uniform(60, 600, (2, cells)) / 16000
    voiced = np.repeat(rng.random((2, frames)) < 0.7, 2, 1)
    new = np.where(voiced, new, 1 / 160)
    narrowing, overlap = rng.uniform(1, 2, (2, cells, 2)), rng.uniform(-2, 0, (2, cells, 2))
    overlap[:, ::3] = 0
    for row, length in enumerate(lengths):
        ended = -(-length // 160) * 2
        voiced[row, ended:], new[row, ended:], low[row, 20 * ended :] = False, 1 / 160, 0
    # Straight lines from sample to sample and bumps between them: continuous, with all powers and taps in use.
    line = np.zeros((4, 18))
    line[0, 8], line[1, 8], line[1, 9] = 1, -1, 1
    bumps = 0.05 * rng.standard_normal((2, 2, 18))
    kernels = np.stack([line + np.stack([0 * a, a, b - a, -b]) for a, b in bumps])
    smoother, speeds = np.hanning(11)[1:-1], np.array([speed, 0.9 * speed])
    # What float32 makes of the inputs is what the truth starts from.
    arrays = [x.astype(np.float32) for x in (low, old, new, narrowing, overlap, speeds, kernels, smoother)]
    before, after = [single(x) for x in arrays[:3]], [single(x) for x in arrays[3:]]
    out = perturb_cpu.overlap_add(
        single(waves), torch.tensor(lengths), *before, torch.from_numpy(voiced), *after
    ).numpy()
    low, old, new, narrowing, overlap, speeds, kernels, smoother = (x.astype(float) for x in arrays)
    for row, length in enumerate(lengths):
        ended = -(-length // 160) * 2
        heard = waves[row, :length].astype(np.float32).astype(float)
        rows = (x[row, :ended] for x in (old, new, voiced, narrowing, overlap))
        truth = laid_down(heard, low[row, : 20 * ended], *rows, speeds[row], kernels[row], smoother)
        # Phases and fractions of a float32 are off by some 1e-5 samples, the grains' slopes are up to 1.
        np.testing.assert_allclose(out[row, :length], truth, atol=1e-4)
        assert not out[row, length:].any()


def biquads(rng, shape):
    """Peaks with poles anywhere inside the unit circle, real ones too, and gains within 12 dB."""
    angle, q, root = np.exp(rng.uniform(np.log(0.02), np.log(3.0), shape)), rng.uniform(0.2, 5, shape), 10**0.3
    alpha, a = np.sin(angle) / (2 * q), root ** rng.uniform(-1, 1, shape)
    b = [1 + alpha * a, -2 * np.cos(angle), 1 - alpha * a, -2 * np.cos(angle), 1 - alpha / a]
    return np.stack(b, -1) / (1 + alpha / a)[..., None]


@pytest.mark.parametrize(("batch", "count", "samples"), [(1, 1, 3), (1, 10, 4000), (2, 16, 500), (5, 10, 3000)])
def test_cascade(core, batch, count, samples):
    rng = RNG(count)
    sections, waves = biquads(rng, (batch, count)), rng.standard_normal((batch, samples)).astype(np.float32)
    filtered = perturb_cpu.cascade(torch.from_numpy(waves), torch.from_numpy(sections))
    for row in range(batch):
        sos = np.insert(sections[row], 3, 1, axis=1)
        truth = sosfilt(sos, waves[row].astype(float))
        # Every section rounds some ten times what the sections after it pass on or amplify.
        np.testing.assert_allclose(filtered[row], truth, atol=2e-6 * count * max(1, np.abs(truth).max()))


def test_cascade_at_sixty_hertz_where_biquads_in_float32_fail(core):
    angle, q = 2 * np.pi * 60 / 16000, 5
    alpha, a = np.sin(angle) / (2 * q), 10**0.3
    b = np.array([1 + alpha * a, -2 * np.cos(angle), 1 - alpha * a, -2 * np.cos(angle), 1 - alpha / a])
    section = b / (1 + alpha / a)
    noise = RNG(0).standard_normal(16000).astype(np.float32)
    truth = sosfilt(np.insert(section, 3, 1)[None], noise.astype(float))
    ours = perturb_cpu.cascade(torch.from_numpy(noise)[None], torch.from_numpy(section)[None, None])[0].numpy()
    plain = sosfilt(np.insert(section, 3, 1)[None].astype(np.float32), noise)
    assert np.abs(ours - truth).max() < 3e-6
    assert np.abs(plain - truth).max() > 1e-4


def test_not_even_nan_leads_astray(core):
    waves = torch.full((2, 1600), float("nan"))
    waves[1] = torch.inf
    frames = torch.full((2, 20), float("nan"))
    shapes = [(2, 20, 2), (2, 20, 2), (2,), (2, 4, 18), (9,)]
    out = perturb_cpu.overlap_add(
        waves,
        torch.tensor([1600, 1599]),
        waves[:, ::4].contiguous(),
        frames,
        frames,
        torch.ones(2, 20, dtype=torch.bool),
        *(torch.full(shape, 1.0) for shape in shapes),
    )
    assert out.shape == waves.shape
    strengths = torch.full((2, 3, 96), float("nan"))
    for part in perturb_cpu.choose(strengths, torch.zeros(2), torch.full((2,), 80.0)):
        assert part.shape == (2, 3)


def test_the_number_of_threads_does_not_matter(core):
    rng = RNG(3)
    waves, sections = single(rng.standard_normal((5, 2000))), torch.from_numpy(biquads(rng, (5, 10)))
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 3, 8):
            torch.set_num_threads(count)
            low = perturb_cpu.decimate(waves, torch.full((5,), 2000), single(np.hanning(49)))
            results.append((perturb_cpu.cascade(waves, sections), low))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_which_core_runs(core):
    assert next(b.implementation for b in backends() if (b.op, b.device) == ("perturb", "cpu")) == core


CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


@pytest.mark.parametrize("implementation", ["compiled", "torch"])
@pytest.mark.parametrize("samples", [481, 640])
def test_ops_are_registered_correctly(implementation, samples, monkeypatch):
    if implementation == "torch":
        monkeypatch.setenv(perturb_cpu.PERTURB.variable, "torch")
    waves, lengths = single(RNG(0).standard_normal((2, samples))), torch.tensor([samples, 300])
    ops = torch.ops.spintok
    low = ops.decimate(waves, lengths)
    cells = 2 * low.shape[1] // 40
    rates = torch.full((2, cells), 120 / 16000)
    edges = torch.zeros(2, cells, 2)
    calls = [
        (ops.decimate, (waves, lengths)),
        (ops.pitch_candidates, (low,)),
        (ops.choose_pitch, (ops.pitch_candidates(low)[0], torch.zeros(2), torch.full((2,), 80.0))),
        (
            ops.overlap_add,
            (waves, lengths, low, rates, rates, rates > 0, edges + 1, edges, torch.ones(2)),
        ),
        (ops.equalize, (waves, torch.ones(2, BANDS), torch.full((2, BANDS), 3.0))),
        (ops.equalize, (waves, torch.ones(2, BANDS), torch.full((2, BANDS), 3.0), lengths)),
    ]
    for op, arguments in calls:
        torch.library.opcheck(op.default, arguments, test_utils=CHECKS)
    assert not ops.equalize(*calls[-1][1])[1, 300:].any()


def test_samples_per_call_depends_on_the_core(core, monkeypatch):
    compiled = samples_per_call(torch.zeros(1))
    monkeypatch.setenv(perturb_cpu.PERTURB.variable, "torch")
    assert samples_per_call(torch.zeros(1)) < compiled < samples_per_call(torch.zeros(1, device="meta"))
