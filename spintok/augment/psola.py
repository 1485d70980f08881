"""Pitch-synchronous overlap-add of a batch: new pitch and new formants in the old time.

Every period of the output is a grain of the input, read faster or slower to move the formants and laid down
at the new pitch (Moulines and Charpentier 1990; the procedure behind Praat's "Change gender"). No loop runs
over the grains: the phase of the new pitch says for every output sample which two grains meet there, and all
samples of all utterances are read at once. Pitch is constant within cells of 5 ms and positions are kept
relative to a cell, where float32 has digits to spare. ``spintok_kernels`` does the same for the CPU, compiled.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from spintok_kernels import perturb_native
from torch import Tensor

from spintok.augment.interpolate import Planes, interpolants, kernels, read
from spintok.augment.pitch import DECIMATION, PITCH_HOP, PitchTrack
from spintok.frames import SAMPLE_RATE

__all__ = ["resynthesize"]

CELL = PITCH_HOP // 2  # samples
LOWEST, HIGHEST = 40.0, 950.0  # hertz, of the new pitch
MARKS = math.ceil(CELL * HIGHEST / SAMPLE_RATE)  # at most so many grains begin in a cell
UNVOICED_PERIOD = 160  # samples from grain to grain where there is no pitch
COHERENCE = 2.0  # samples by which noise must be displaced to lose its correlation
ALIGNMENT = 9  # cells over which the place of the glottal pulses is averaged
PIECE = 512  # cells that a CPU works on at a time: what it touches stays in its cache
# Samples: no grain that is heard is read farther from its cell than an old period and a half, or than a period
# without pitch at 4 times the speed.
REACH = 768


def resynthesize(
    waveforms: Tensor,
    lengths: Tensor,
    low: Tensor,
    track: PitchTrack,
    formant: Tensor,
    median: Tensor,
    spread: Tensor,
) -> Tensor:
    """(B, S) -> (B, S), each row to its length (``lengths``, (B,)); what comes after is left to the caller.

    Where nothing is compiled S must be a multiple of PITCH_HOP and what lies past the lengths silent.
    ``low`` is the waveforms' ``decimate``; ``formant``, ``median`` and ``spread`` are ratios (B,). As in
    Praat, the new pitch is M + (r f0 - M) s with the new median M = r m, the median ratio r and the range
    ratio s; it is held within LOWEST and HIGHEST.
    """
    batch, samples = waveforms.shape
    f0, voiced = _cells(track)
    middle = (track.median * median)[:, None]
    new_f0 = (middle + (f0 * median[:, None] - middle) * spread[:, None]).clamp(LOWEST, HIGHEST)
    # Rates are cycles a sample.
    old_rate = f0 / SAMPLE_RATE
    new_rate = torch.where(voiced, new_f0 / SAMPLE_RATE, 1 / UNVOICED_PERIOD)
    # A grain is as wide as its own period: lowering the pitch leaves gaps between the pulses, not echoes.
    narrowing = torch.where(voiced, old_rate * formant[:, None] / new_rate, 1.0).clamp_min(1.0)
    # Where two grains of noise overlap their powers add up, not their amplitudes.
    displacement = (1 - formant[:, None]) * UNVOICED_PERIOD / COHERENCE
    noise = -2 * (1 - torch.exp(-displacement.square()))
    narrow, overlap = _edges(narrowing, torch.ones_like(noise)), _edges(torch.where(voiced, 0.0, noise), noise)
    if perturb_native.runs_on(low):
        weights, smoother = kernels(formant).transpose(0, 1).float().contiguous(), _smoother(low.device)
        rates = (low, old_rate, new_rate, voiced)
        return perturb_native.overlap_add(waveforms, lengths, *rates, narrow, overlap, formant, weights, smoother)

    phase, offsets = _grains(_pulse_phase(low, old_rate), old_rate, new_rate, voiced, formant)
    planes = interpolants(waveforms, formant, REACH)
    row = torch.arange(batch, device=low.device)[:, None] * planes[0].shape[1]
    start = row + torch.arange(0, samples, CELL, device=low.device)
    each_cell = (
        phase,
        new_rate,
        formant[:, None].expand_as(phase),
        offsets,
        start,
        narrow,
        overlap,
    )
    cells = samples // CELL
    piece = PIECE if low.device.type == "cpu" else batch * cells
    pieces = zip(*(part.flatten(0, 1).split(piece) for part in each_cell), strict=True)
    output = torch.empty(batch * cells, CELL, device=low.device, dtype=low.dtype)
    for target, parts in zip(output.split(piece), pieces, strict=True):
        _overlap_add(target, planes, *parts)
    return output.view(batch, samples)


def _overlap_add(
    output: Tensor,
    planes: Planes,
    phase: Tensor,
    rate: Tensor,
    speed: Tensor,
    offsets: Tensor,
    start: Tensor,
    narrowing: Tensor,
    overlap: Tensor,
) -> None:
    """Write the ``output`` (C, CELL) of C cells, of any utterances: at every sample two grains meet."""
    time = torch.arange(CELL, device=phase.device, dtype=phase.dtype)
    one = torch.ones((), device=phase.device, dtype=phase.dtype)
    # How far a sample is on its way from the first grain to the second.
    progress = torch.addcmul(phase[:, None], rate[:, None], time)
    slot = progress.long()
    slot += torch.arange(0, offsets.numel(), MARKS + 2, device=phase.device)[:, None]
    progress = progress.frac_()
    way = (time + 0.5) / CELL
    narrowing = torch.lerp(narrowing[:, :1], narrowing[:, 1:], way)
    fall = _fade(progress * narrowing, one)
    rise = _fade((1 - progress).mul_(narrowing), one)
    path = speed[:, None] * time

    def grain(side: int) -> Tensor:
        position = offsets.view(-1)[side:].index_select(0, slot.view(-1)).view(path.shape).add_(path)
        column = position.long()
        column += start[:, None]
        return read(planes, column, position.frac_())

    mixed = torch.addcmul(grain(0).mul_(fall), grain(1), rise)
    overlap = torch.lerp(overlap[:, :1], overlap[:, 1:], way)
    torch.mul(mixed, torch.addcmul(one, fall.mul_(rise), overlap).rsqrt_(), out=output)


def _cells(track: PitchTrack) -> tuple[Tensor, Tensor]:
    """Pitch and voicing (B, 2 J) of the cells: two a frame, the pitch between voiced frames interpolated."""
    f0, voiced = track.f0, track.voiced
    before = F.pad(f0, (1, 0))[:, :-1].where(F.pad(voiced, (1, 0))[:, :-1], f0)
    after = F.pad(f0, (0, 1))[:, 1:].where(F.pad(voiced, (0, 1))[:, 1:], f0)
    f0 = torch.stack([0.25 * before + 0.75 * f0, 0.75 * f0 + 0.25 * after], -1).flatten(1)
    return f0, voiced.repeat_interleave(2, 1)


def _pulse_phase(low: Tensor, rate: Tensor) -> Tensor:
    """Phase (B, C) in cycles at the start of each cell, whole numbers being where the energy of a period
    peaks.

    The pulses are the half-wave of the waveform's stronger polarity, squared; their fundamental component
    tells where they are, and following it from cell to cell also takes out the drift of a slightly wrong
    pitch.
    """
    batch, cells = rate.shape
    polarity = low.pow(3).sum(1, keepdim=True).sign()
    pulses = (low * polarity).clamp_min(0).square().view(batch, cells, -1)
    advance = rate.double() * CELL
    phase = (advance.cumsum(1) - advance).frac().to(low.dtype)
    time = torch.arange(0, CELL, DECIMATION, device=low.device, dtype=low.dtype)
    angle = 2 * math.pi * torch.addcmul(phase[..., None], rate[..., None], time)
    parts = torch.stack([(pulses * angle.cos()).sum(-1), (pulses * angle.sin()).sum(-1)], 1)
    around = F.pad(parts, (ALIGNMENT // 2, ALIGNMENT // 2)).unfold(-1, ALIGNMENT, 1)
    cosine, sine = (around @ _smoother(low.device)).unbind(1)
    return phase - torch.atan2(sine, cosine) / (2 * math.pi)


def _grains(
    old_phase: Tensor, old_rate: Tensor, new_rate: Tensor, voiced: Tensor, speed: Tensor
) -> tuple[Tensor, Tensor]:
    """Where the grains of every cell are read.

    The fraction of a grain (B, C) that has passed when a cell begins, and for the grain in progress and the
    MARKS + 1 after it the source position (B, C, MARKS + 2) of the cell's first sample, in samples after the
    one REACH before the cell.
    """
    # Past the end, silent cells hold the grain that the last samples fade to.
    extra = -(-UNVOICED_PERIOD // CELL) + 1
    old_phase, old_rate = F.pad(old_phase, (0, extra)), F.pad(old_rate, (0, extra), value=1.0)
    new_rate, voiced = F.pad(new_rate, (0, extra), value=1 / UNVOICED_PERIOD), F.pad(voiced, (0, extra))
    batch, cells = new_rate.shape
    device = new_rate.device

    end = (new_rate.double() * CELL).cumsum(1)
    end_count = end.floor()
    start, start_count = F.pad(end, (1, 0))[:, :-1], F.pad(end_count, (1, 0))[:, :-1]
    phase = start - start_count
    number = torch.arange(1, MARKS + 1, device=device)
    moment = (number - phase[..., None]) / new_rate.double()[..., None]
    cycles = old_phase[..., None] + old_rate[..., None] * moment
    # The old pulse nearest in time. Without pitch a grain stays where it is.
    shift = torch.where(voiced[..., None], (cycles.round() - cycles) / old_rate[..., None], 0.0)
    begin = torch.arange(cells, device=device)[:, None] * CELL
    moment = moment + begin
    source = moment + shift

    # One table of grains for each utterance; a cell has fewer than MARKS as a rule, the rest goes to the last
    # slot.
    size = cells * MARKS + MARKS + 2
    count = start_count.long()[..., None]
    slot = torch.where(number <= (end_count - start_count)[..., None], count + number, size).flatten(1)
    table = moment.new_zeros(2, batch, size + 1)
    table[0].scatter_(1, slot, moment.flatten(1))
    table[1].scatter_(1, slot, source.flatten(1))
    nearby = (count + torch.arange(MARKS + 2, device=device)).flatten(1)
    moment, source = (part.gather(1, nearby).view(batch, cells, -1) for part in table)
    # Counted from REACH before the cell, no position is negative: truncation is the floor.
    offsets = source - begin + REACH - speed.double()[:, None, None] * (moment - begin)
    # What lies out of reach has no weight but is read all the same.
    offsets = offsets.clamp(0, 2 * REACH - 4 * CELL)
    kept = slice(0, cells - extra)
    return phase[:, kept].to(new_rate.dtype), offsets[:, kept].to(new_rate.dtype).contiguous()


def _edges(values: Tensor, beyond: Tensor) -> Tensor:
    """Values of the cells (B, C) and of the cells past the end (B, 1) -> at the cells' two edges (B, C, 2), so
    that lines between them are continuous."""
    padded = torch.cat([values[:, :1], values, beyond], 1)
    edges = (padded[:, 1:] + padded[:, :-1]) / 2
    return torch.stack([edges[:, :-1], edges[:, 1:]], -1)


def _fade(x: Tensor, one: Tensor) -> Tensor:
    """From 1 at 0 to 0 at 1 and beyond: within 0.01 of a raised cosine and three times as fast. Overwrites
    x."""
    x = x.clamp_max_(1.0)
    return torch.addcmul(one, x - 1.5, x.square(), value=2)


@lru_cache(maxsize=8)
def _smoother(device: torch.device) -> Tensor:
    return torch.hann_window(ALIGNMENT + 2, periodic=False, device=device)[1:-1]
