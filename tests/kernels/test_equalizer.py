import math

import numpy as np
import pytest
import torch
from scipy.signal import freqz, lfilter
from spintok_kernels.perturb import BANDS, CENTERS, equalize
from spintok_kernels.perturb import cpu as perturb_cpu
from spintok_kernels.perturb.equalizer import frequency_response


@pytest.fixture(autouse=True, params=["torch", "compiled"])
def core(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setenv(perturb_cpu.PERTURB.variable, "torch")
    elif perturb_cpu.PERTURB.choose()[0] == "torch":
        pytest.skip("no compiled core here")


def cookbook(band, gain, q):
    """Coefficients b, a as the Audio EQ Cookbook prints them, in float64."""
    a, w = 10 ** (gain / 40), 2 * math.pi * CENTERS[band] / 16000
    cos, alpha = math.cos(w), math.sin(w) / (2 * q)
    if 0 < band < BANDS - 1:
        return (1 + alpha * a, -2 * cos, 1 - alpha * a), (1 + alpha / a, -2 * cos, 1 - alpha / a)
    p, m, e = a + 1, a - 1, 2 * math.sqrt(a) * alpha
    if band == 0:
        b = a * (p - m * cos + e), 2 * a * (m - p * cos), a * (p - m * cos - e)
        return b, (p + m * cos + e, -2 * (m + p * cos), p + m * cos - e)
    b = a * (p + m * cos + e), -2 * a * (m + p * cos), a * (p + m * cos - e)
    return b, (p - m * cos + e, 2 * (m - p * cos), p - m * cos - e)


def settings(count):
    rng = np.random.default_rng(0)
    gains, qs = rng.uniform(-12, 12, (count, BANDS)), 2 * 2.5 ** rng.random((count, BANDS))
    gains[0], qs[0], gains[1], qs[1] = 12, 5, -12, 5
    return gains, qs


def test_centers():
    assert pytest.approx(np.geomspace(60, 7600, 10)) == CENTERS


def test_response_is_the_cookbooks():
    gains, qs = settings(5)
    response = frequency_response(torch.tensor(gains).float(), torch.tensor(qs).float()).numpy()
    for row in range(len(gains)):
        truth = 1
        for band in range(BANDS):
            truth = truth * freqz(*cookbook(band, gains[row, band], qs[row, band]), np.linspace(0, np.pi, 4097))[1]
        # Twenty factors, each rounded a few times: 20 * 4 * 6e-8 in the worst case.
        np.testing.assert_allclose(response[row], truth, rtol=5e-6)


@pytest.mark.parametrize("samples", [1, 399, 8192, 24577, 70001])
def test_filter_is_the_recursive_one(samples):
    gains, qs = settings(3)
    noise = np.random.default_rng(1).standard_normal((3, samples))
    filtered = equalize(*(torch.tensor(part).float() for part in (noise, gains, qs))).numpy()
    for row in range(3):
        truth = noise[row]
        for band in range(BANDS):
            truth = lfilter(*cookbook(band, gains[row, band], qs[row, band]), truth)
        # The response ends where the slowest ring has decayed by 84 dB of its own small part.
        np.testing.assert_allclose(filtered[row], truth, atol=2e-5 * max(1.0, truth.std()))


def test_no_gain_is_the_identity():
    noise = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0))
    same = equalize(noise, torch.zeros(2, BANDS), torch.full((2, BANDS), 3.0))
    torch.testing.assert_close(same, noise, atol=3e-6, rtol=0)
