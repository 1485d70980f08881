"""Interpolate waveforms between samples by a low-passed cubic polynomial for every sample interval.

Reading a waveform faster than real time would alias what is above half the sample rate, so each utterance has its own
windowed-sinc low-pass. The filter is evaluated at the four Chebyshev-Lobatto points of an interval and the cubic goes
through them (a Farrow structure), so the result is continuous from one interval to the next.
"""

import math
from functools import lru_cache
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Planes", "interpolants", "kernels", "read"]

Planes: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]

HALF_WIDTH = 9  # samples of the low-pass on each side
TAPS = 2 * HALF_WIDTH
BLOCK = 16
NODES = (0.0, 0.25, 0.75, 1.0)


def interpolants(waveforms: Tensor, speed: Tensor, margin: int) -> Planes:
    """Return the polynomials of waveforms (B, S) for reading at ``speed`` (B,) times real time: four planes (B, P).

    Plane i holds the coefficients of u ** i, 0 <= u < 1; column ``margin + n`` is the interval that begins at sample
    n. P is at least S + 2 * margin, so the silence before and after the waveform can be read too.
    """
    batch, samples = waveforms.shape
    columns = samples + 2 * margin
    columns += -columns % BLOCK
    padded = F.pad(waveforms, (margin + HALF_WIDTH - 1, columns - samples - margin + HALF_WIDTH))
    blocks = padded.unfold(1, BLOCK + TAPS - 1, BLOCK).contiguous()
    padded_kernels = F.pad(kernels(speed).to(waveforms.dtype), (0, 1))
    # Column j of the matrix is the kernel shifted by j rows: one matrix product gives BLOCK outputs.
    constant, linear, square, cube = (
        torch.bmm(blocks, kernel[:, _moves(speed.device)]).view(batch, columns) for kernel in padded_kernels
    )
    return constant, linear, square, cube


def read(planes: Planes, column: Tensor, fraction: Tensor) -> Tensor:
    """Evaluate the polynomials at ``fraction`` (any shape) of the intervals ``column``, counted over all rows."""
    flat = column.reshape(-1)
    constant, linear, square, cube = (plane.view(-1).index_select(0, flat).view(fraction.shape) for plane in planes)
    return constant.addcmul_(linear.addcmul_(square.addcmul_(cube, fraction), fraction), fraction)


def kernels(speed: Tensor) -> Tensor:
    """Return the weights (4, B, TAPS) of samples n - HALF_WIDTH + 1 ... n + HALF_WIDTH for each coefficient."""
    distance, window, to_coefficients = _design(speed.device)
    # At real time and slower nothing aliases, and samples of the input are reproduced exactly.
    cutoff = (1 / speed.double().clamp_min(1.0))[:, None, None]
    values = cutoff * torch.sinc(cutoff * distance) * window
    values = values / values.sum(-1, keepdim=True)
    return torch.einsum("ij,bjk->ibk", to_coefficients, values)


@lru_cache(maxsize=8)
def _design(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return distances of taps from nodes, the window there (4, TAPS), and the matrix from values to coefficients."""
    nodes = torch.tensor(NODES, dtype=torch.float64)
    distance = nodes[:, None] - torch.arange(1 - HALF_WIDTH, HALF_WIDTH + 1, dtype=torch.float64)
    window = torch.cos(math.pi / 2 * distance / HALF_WIDTH).square()
    to_coefficients = torch.linalg.inv(nodes[:, None] ** torch.arange(4, dtype=torch.float64))
    return distance.to(device), window.to(device), to_coefficients.to(device)


@lru_cache(maxsize=8)
def _moves(device: torch.device) -> Tensor:
    """Return (BLOCK + TAPS - 1, BLOCK): the tap in row i of column j; TAPS, which is a zero, where there is none."""
    tap = torch.arange(BLOCK + TAPS - 1)[:, None] - torch.arange(BLOCK)
    return torch.where((tap >= 0) & (tap < TAPS), tap, TAPS).to(device)
