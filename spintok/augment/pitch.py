"""Track the fundamental frequency of a batch of waveforms, all frames of all utterances at once.

The strength of a candidate is the autocorrelation of a windowed frame over that of the window (Boersma 1993,
"Accurate short-term analysis of the fundamental frequency"), at lags that are evenly spaced in log frequency. Two
passes replace a search along time: the first finds the speaker's range, the second searches only there (De Looze and
Hirst 2008, floor 0.75 Q1 and ceiling 1.5 Q3).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from spintok_kernels.perturb import (
    CANDIDATES,
    FLOOR,
    PITCH_HOP,
    STEPS_PER_OCTAVE,
    choose_pitch,
    pitch_candidates,
)
from torch import Tensor

__all__ = ["PitchTrack", "track_pitch"]

VOICING_THRESHOLD = 0.55
SILENCE_THRESHOLD = 0.03  # of the loudest frame's amplitude


@dataclass(frozen=True)
class PitchTrack:
    """The pitch of a batch; frame j is centred on sample ``PITCH_HOP * j + PITCH_HOP // 2``.

    Attributes:
        f0: (B, J) hertz, positive everywhere, meaningful where ``voiced``.
        voiced: (B, J) bool.
        median: (B,) hertz over the voiced frames, 0 without any.
    """

    f0: Tensor
    voiced: Tensor
    median: Tensor


def track_pitch(low: Tensor, lengths: Tensor) -> PitchTrack:
    """Track the pitch of ``low`` (B, 40 J), the result of ``spintok_kernels.perturb.decimate``.

    ``lengths`` (B,) are in samples at 16 kHz. Frames that begin after an utterance's end are unvoiced.
    """
    strength, energy = pitch_candidates(low)
    frame = torch.arange(energy.shape[1], device=low.device)
    inside = frame * PITCH_HOP < lengths[:, None]
    loud = inside & (energy > SILENCE_THRESHOLD**2 * energy.amax(1, keepdim=True))

    # First pass: the speaker's range, from frames that are certainly voiced.
    lowest, highest = low.new_zeros(len(low)), low.new_full((len(low),), CANDIDATES - 1)
    best, index, _ = choose_pitch(strength, lowest, highest)
    low_quartile, _, high_quartile = _quartiles(index, loud & (best > 0.6), CANDIDATES / 2)
    lowest = low_quartile + STEPS_PER_OCTAVE * math.log2(0.75)
    highest = high_quartile + STEPS_PER_OCTAVE * math.log2(1.5)

    # Second pass.
    best, index, offset = choose_pitch(strength, lowest, highest)
    voiced = _open(loud & (best > VOICING_THRESHOLD), 3)
    # The last frame is repeated past the end of an utterance, like the first frame before its start.
    last = (inside.sum(1, keepdim=True) - 1).clamp_min(0)
    position = _median_of_five((index + offset).gather(1, frame.minimum(last)))
    f0 = FLOOR * torch.exp2(position / STEPS_PER_OCTAVE)
    _, median, _ = _quartiles(f0, voiced, 0.0)
    return PitchTrack(f0, voiced, median)


def _quartiles(values: Tensor, mask: Tensor, default: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the quartiles (nearest rank) of the masked values of each row, ``default`` for a row without any."""
    ordered = values.masked_fill(~mask, math.inf).sort(-1).values
    count = mask.sum(-1, keepdim=True)
    ranks = torch.cat([(count - 1).clamp_min(0) * quarter // 4 for quarter in (1, 2, 3)], -1)
    picked = ordered.gather(-1, ranks)
    picked = torch.where(count > 0, picked, torch.full_like(picked, default))
    return picked[:, 0], picked[:, 1], picked[:, 2]


def _median_of_five(values: Tensor) -> Tensor:
    """Return the running median of five numbers along the rows (B, J)."""
    padded = F.pad(values[:, None], (2, 2), mode="replicate")[:, 0]
    a, b, c, d, e = padded.unfold(1, values.shape[1], 1).unbind(1)
    # The median is the higher of two minima, the lower of two maxima, or the fifth number.
    low, high = a.minimum(b).maximum(c.minimum(d)), a.maximum(b).minimum(c.maximum(d))
    return low.minimum(high).maximum(low.maximum(high).minimum(e))


def _open(mask: Tensor, width: int) -> Tensor:
    """Drop runs of True that are shorter than ``width`` (odd)."""
    values = mask.to(torch.float32)[:, None]
    kept = 1 - F.max_pool1d(F.pad(1 - values, (width // 2, width // 2), value=1.0), width, 1)
    return F.max_pool1d(F.pad(kept, (width // 2, width // 2)), width, 1)[:, 0] > 0.5
