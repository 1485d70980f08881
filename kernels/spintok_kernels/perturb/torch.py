"""The passes of speaker perturbation in torch: all frames and cells of all utterances at once.

Overlap-add has no loop over grains: the phase of the new pitch gives the two grains that meet at each output sample.
Positions are relative to a cell, where float32 is precise enough.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from spintok_kernels.perturb.interpolate import Planes, interpolants, read
from spintok_kernels.perturb.tables import (
    ALIGNMENT,
    CANDIDATES,
    CELL,
    DECIMATION,
    LAGS,
    LOW_HOP,
    MARKS,
    OCTAVE_COST,
    PITCH_HOP,
    STEPS_PER_OCTAVE,
    UNVOICED_PERIOD,
    WINDOW,
    decimator,
    lags,
    smoother,
    spectrum,
)

__all__ = ["candidates", "choose", "decimate", "overlap_add", "valid_samples"]

PIECE = 512  # cells that a CPU processes at a time, so that their data stay in its cache
# Samples: no audible grain is read farther from its cell than an old period and a half, or than a period without pitch
# at 4 times the speed.
REACH = 768


def valid_samples(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Return 1.0 before the end of each utterance and 0.0 after it, like `waveforms` (B, S).

    A product with this mask is eight times as fast as masked_fill.
    """
    return (torch.arange(waveforms.shape[1], device=waveforms.device) < lengths[:, None]).to(waveforms.dtype)


def _whole_frames(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Silence what is past the lengths and pad to a multiple of PITCH_HOP."""
    return F.pad(waveforms * valid_samples(waveforms, lengths), (0, -waveforms.shape[1] % PITCH_HOP))


def decimate(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Low-pass (B, S) and keep every fourth sample: (B, LOW_HOP * ceil(S / PITCH_HOP))."""
    waveforms = _whole_frames(waveforms, lengths)
    block = 64
    kernel, matrix = decimator(waveforms.device, block)
    batch, samples = waveforms.shape
    tail = -samples % block
    side = kernel // 2
    blocks = F.pad(waveforms, (side, side + tail)).unfold(1, block + kernel, block)
    low = (blocks @ matrix).reshape(batch, -1)
    return low[:, : samples // DECIMATION].contiguous()


def candidates(low: Tensor) -> tuple[Tensor, Tensor]:
    """Return the strengths of the candidates (B, J, LAGS), 0 past CANDIDATES, and the frames' energies (B, J)."""
    bonus = OCTAVE_COST / STEPS_PER_OCTAVE
    side = (WINDOW - LOW_HOP) // 2
    frames = F.pad(low, (side, side)).unfold(1, WINDOW, LOW_HOP)
    correlation = (frames @ spectrum(low.device)).square_() @ lags(low.device)
    energy = correlation[..., -1]
    strength = correlation[..., :-1] / energy.clamp_min(torch.finfo(low.dtype).tiny)[..., None]
    strength = strength + bonus * torch.arange(CANDIDATES, device=low.device)
    return F.pad(strength, (0, LAGS - CANDIDATES)), energy.contiguous()


def choose(strengths: Tensor, lowest: Tensor, highest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best strength, its candidate and the offset of its parabola (B, J) within each row's range (B,)."""
    strengths = strengths[..., :CANDIDATES]
    grid = torch.arange(CANDIDATES, device=strengths.device, dtype=strengths.dtype)
    outside = (grid < lowest[:, None]) | (grid > highest[:, None])
    strengths = strengths.masked_fill(outside[:, None], -1.0)
    best, index = strengths.max(-1)
    return best, index.to(strengths.dtype), _parabola(strengths, index)


def _parabola(strengths: Tensor, index: Tensor) -> Tensor:
    """Return the offset, in [-1/2, 1/2] steps, of the top of the parabola through a peak and its neighbours."""
    centre = index.clamp(1, CANDIDATES - 2)[..., None]
    left, middle, right = strengths.gather(-1, torch.cat([centre - 1, centre, centre + 1], -1)).unbind(-1)
    curvature = (left - 2 * middle + right).clamp_max(-1e-6)
    return (0.5 * (left - right) / curvature).clamp(-0.5, 0.5)


def overlap_add(
    waveforms: Tensor,
    lengths: Tensor,
    low: Tensor,
    old_rate: Tensor,
    new_rate: Tensor,
    voiced: Tensor,
    narrowing: Tensor,
    overlap: Tensor,
    speed: Tensor,
) -> Tensor:
    """Compute `spintok_kernels.perturb.overlap_add`; samples past the lengths have no meaning."""
    whole = _whole_frames(waveforms, lengths)
    batch, samples = whole.shape
    phase, offsets = _grains(_pulse_phase(low, old_rate), old_rate, new_rate, voiced, speed)
    planes = interpolants(whole, speed, REACH)
    row = torch.arange(batch, device=low.device)[:, None] * planes[0].shape[1]
    start = row + torch.arange(0, samples, CELL, device=low.device)
    each_cell = (
        phase,
        new_rate,
        speed[:, None].expand_as(phase),
        offsets,
        start,
        narrowing,
        overlap,
    )
    cells = samples // CELL
    piece = PIECE if low.device.type == "cpu" else batch * cells
    pieces = zip(*(part.flatten(0, 1).split(piece) for part in each_cell), strict=True)
    output = torch.empty(batch * cells, CELL, device=low.device, dtype=low.dtype)
    for target, parts in zip(output.split(piece), pieces, strict=True):
        _overlap_add(target, planes, *parts)
    return output.view(batch, samples)[:, : waveforms.shape[1]].contiguous()


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
    """Write the samples of C cells of any utterances to ``output`` (C, CELL): two grains meet at every sample."""
    time = torch.arange(CELL, device=phase.device, dtype=phase.dtype)
    one = torch.ones((), device=phase.device, dtype=phase.dtype)
    # The position of a sample between the first grain, 0, and the second, 1.
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


def _pulse_phase(low: Tensor, rate: Tensor) -> Tensor:
    """Return the phase (B, C) in cycles at the start of each cell; the energy of a period peaks at whole numbers.

    The pulses are the squared half-wave of the waveform's stronger polarity, and the phase of their fundamental gives
    their position. Following it from cell to cell also corrects the drift of a slightly wrong pitch.
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
    cosine, sine = (around @ smoother(low.device)).unbind(1)
    return phase - torch.atan2(sine, cosine) / (2 * math.pi)


def _grains(
    old_phase: Tensor, old_rate: Tensor, new_rate: Tensor, voiced: Tensor, speed: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the positions at which the grains of every cell are read.

    The first result (B, C) is the fraction of a grain that has passed when a cell begins. The second (B, C, MARKS + 2)
    is the source position of the cell's first sample in the grain in progress and in the MARKS + 1 after it, counted
    in samples from the one REACH before the cell.
    """
    # The last samples fade to a grain in the silent cells past the end.
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
    # Move each grain to the nearest old pulse. Without pitch a grain is not moved.
    shift = torch.where(voiced[..., None], (cycles.round() - cycles) / old_rate[..., None], 0.0)
    begin = torch.arange(cells, device=device)[:, None] * CELL
    moment = moment + begin
    source = moment + shift

    # One table of grains for each utterance. Most cells have fewer than MARKS; the rest goes to the last slot.
    size = cells * MARKS + MARKS + 2
    count = start_count.long()[..., None]
    slot = torch.where(number <= (end_count - start_count)[..., None], count + number, size).flatten(1)
    table = moment.new_zeros(2, batch, size + 1)
    table[0].scatter_(1, slot, moment.flatten(1))
    table[1].scatter_(1, slot, source.flatten(1))
    nearby = (count + torch.arange(MARKS + 2, device=device)).flatten(1)
    moment, source = (part.gather(1, nearby).view(batch, cells, -1) for part in table)
    # Positions counted from REACH before the cell are not negative, so truncation is the floor.
    offsets = source - begin + REACH - speed.double()[:, None, None] * (moment - begin)
    # Samples out of reach have zero weight, but they are read.
    offsets = offsets.clamp(0, 2 * REACH - 4 * CELL)
    kept = slice(0, cells - extra)
    return phase[:, kept].to(new_rate.dtype), offsets[:, kept].to(new_rate.dtype).contiguous()


def _fade(x: Tensor, one: Tensor) -> Tensor:
    """Fall from 1 at 0 to 0 at 1 and above: within 0.01 of a raised cosine, at a third of its time. Overwrites x."""
    x = x.clamp_max_(1.0)
    return torch.addcmul(one, x - 1.5, x.square(), value=2)
