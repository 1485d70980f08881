"""The random equalizer of Spin's perturbation: a low shelf, eight peaks and a high shelf.

The bands are the biquads of Bristow-Johnson's "Audio EQ Cookbook". The compiled pass runs them one after another
(`sections`). In torch ten recursive filters would be sequential in time and, at 60 Hz in float32, less precise:
`equalize` evaluates their product on the unit circle, transforms it to one impulse response and applies it by
overlap-save with the FFT.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from spintok_kernels.perturb.tables import SAMPLE_RATE

__all__ = ["BANDS", "CENTERS", "equalize", "frequency_response", "sections"]

BANDS = 10
# Hertz, evenly spaced on a logarithmic scale; the first band is a low shelf and the last a high shelf.
CENTERS = tuple(60.0 * (7600 / 60) ** (band / (BANDS - 1)) for band in range(BANDS))
# Samples of the impulse response, 0.5 s: the slowest band (60 Hz, Q 5, +12 dB) has then decayed by 84 dB.
RESPONSE = 8192


def equalize(waveforms: Tensor, gains: Tensor, qs: Tensor) -> Tensor:
    """Filter waveforms (B, S) from rest by bands with gains (B, BANDS) in decibels and qs (B, BANDS), in torch."""
    samples = waveforms.shape[1]
    size = min((1 << bits for bits in (14, 15, 16)), key=lambda size: -(-samples // (size - RESPONSE)) * size)
    hop = size - RESPONSE
    impulse = torch.fft.irfft(frequency_response(gains, qs), RESPONSE)
    response = torch.fft.rfft(impulse, size)
    blocks = F.pad(waveforms, (RESPONSE, -samples % hop)).unfold(1, size, hop)
    spectrum = torch.fft.rfft(blocks).mul_(response[:, None])
    filtered: Tensor = torch.fft.irfft(spectrum, size)[..., RESPONSE:]
    return filtered.flatten(1)[:, :samples].contiguous()


def sections(gains: Tensor, qs: Tensor) -> Tensor:
    """Return b0, b1, b2, a1, a2 of the ten biquads of the cookbook, divided by a0: (B, BANDS, 5) float64."""
    centre = 2 * math.pi * torch.tensor(CENTERS, dtype=torch.float64, device=gains.device) / SAMPLE_RATE
    a = torch.exp2(gains.double() * (math.log2(10) / 40))
    alpha, cosine = torch.sin(centre) / (2 * qs.double()), torch.cos(centre).expand_as(a)
    peak = torch.stack(
        [1 + alpha * a, -2 * cosine, 1 - alpha * a, 1 + alpha / a, -2 * cosine, 1 - alpha / a],
        -1,
    )
    # The high shelf is the low shelf with the signs of the cosine and of the odd coefficients changed.
    sign = torch.ones(BANDS, dtype=torch.float64, device=gains.device)
    sign[-1] = -1
    cosine, edge = cosine * sign, 2 * a.sqrt() * alpha
    up, down = a + 1, a - 1
    shelf = torch.stack(
        [
            a * (up - down * cosine + edge),
            2 * a * sign * (down - up * cosine),
            a * (up - down * cosine - edge),
            up + down * cosine + edge,
            -2 * sign * (down + up * cosine),
            up + down * cosine - edge,
        ],
        -1,
    )
    both = torch.cat([shelf[:, :1], peak[:, 1:-1], shelf[:, -1:]], 1)
    return torch.cat([both[..., :3], both[..., 4:]], -1) / both[..., 3:4]


def frequency_response(gains: Tensor, qs: Tensor) -> Tensor:
    """Return the complex response (B, RESPONSE / 2 + 1) of the ten bands from 0 Hz to half the sample rate.

    With c = cos w and c0, a = cos, sin/(2 Q) of the centre, a biquad divided by its middle power of z has the form
    p (c - c0) + q (1 - c c0) + j g sin w in numerator and denominator, for all three kinds of band. Tables hold the
    two differences, computed in float64: float32 would lose the low bands.
    """
    difference, product, sine = _tables(gains.device)
    root = torch.exp2(gains * (math.log2(10) / 40))
    alpha = _sines(gains.device) / (2 * qs)
    numerator = denominator = None
    for band in range(BANDS):
        a, width = root[:, band, None], alpha[:, band, None]
        if band in (0, BANDS - 1):
            # The low shelf; the high shelf is its mirror image, with the slope's sign changed.
            slope = (a - 1) if band == 0 else (1 - a)
            edge = 2 * a.sqrt() * width
            upper = torch.complex(a * ((a + 1) * difference[band] + slope * product[band]), (a * edge) * sine)
            lower = torch.complex((a + 1) * difference[band] - slope * product[band], edge * sine)
        else:
            upper = torch.complex(difference[band].expand(len(a), -1), (width * a) * sine)
            lower = torch.complex(difference[band].expand(len(a), -1), (width / a) * sine)
        numerator = upper if numerator is None else numerator.mul_(upper)
        denominator = lower if denominator is None else denominator.mul_(lower)
    assert numerator is not None
    assert denominator is not None
    return numerator / denominator


@lru_cache(maxsize=8)
def _tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return cos w - cos w0 and 1 - cos w cos w0, both (BANDS, RESPONSE / 2 + 1), and sin w."""
    w = math.pi * torch.arange(RESPONSE // 2 + 1, dtype=torch.float64) / (RESPONSE // 2)
    w0 = 2 * math.pi * torch.tensor(CENTERS, dtype=torch.float64)[:, None] / SAMPLE_RATE
    cosine, centre = torch.cos(w), torch.cos(w0)
    tables = (cosine - centre, 1 - cosine * centre, torch.sin(w))
    return tuple(table.float().to(device) for table in tables)  # type: ignore[return-value]


@lru_cache(maxsize=8)
def _sines(device: torch.device) -> Tensor:
    return torch.sin(2 * math.pi * torch.tensor(CENTERS, dtype=torch.float64) / SAMPLE_RATE).float().to(device)
