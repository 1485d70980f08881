"""What stands around speech: a piece of a recording, with silence or another utterance beside it, louder or quieter.

Tokens should follow the speech and not what stands around it. Views with other surroundings teach this: the loss is
computed on the frames that the view shares with the recording.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from spintok.augment.noise import colored_noise
from spintok.frames import HOP, SAMPLE_RATE, num_frames, num_samples
from spintok.train.recipe_sections import SurroundingsConfig

__all__ = ["Placed", "cut", "surround"]

# Samples of digital silence stay zero; other silence is noise of this level in decibels below the speech.
_QUIET = (30.0, 70.0)


@dataclass(frozen=True)
class Placed:
    """A waveform (S,) whose frame ``first + i`` is frame ``original + i`` of a recording, for i below ``count``."""

    waveform: Tensor
    original: int
    first: int
    count: int

    @classmethod
    def whole(cls, waveform: Tensor) -> "Placed":
        """A waveform (S,) as it is."""
        return cls(waveform, 0, 0, num_frames(len(waveform)))


def cut(waveform: Tensor, config: SurroundingsConfig, rng: np.random.Generator) -> Placed:
    """A waveform (S,), or with probability ``config.piece`` a piece of it that starts on a frame boundary."""
    drawn, size, place = rng.random(3).tolist()
    frames = num_frames(len(waveform))
    wanted = round((config.piece_min + size * (config.piece_max - config.piece_min)) * SAMPLE_RATE / HOP)
    if drawn >= config.piece or not 0 < wanted < frames:
        return Placed.whole(waveform)
    original = int(place * (frames - wanted + 1))
    return Placed(waveform[original * HOP : original * HOP + num_samples(wanted)], original, 0, wanted)


def surround(
    piece: Placed, config: SurroundingsConfig, rng: np.random.Generator, another: Callable[[], Tensor]
) -> Placed:
    """Put silence or another utterance beside a piece, and change level and offset of all of it.

    Args:
        piece: what ``cut`` returned; its waveform may have been perturbed.
        config: what is drawn.
        rng: draws it.
        another: reads some other utterance (S,) of the corpus.
    """
    level = piece.waveform.square().mean().sqrt()
    before, after = torch.zeros(0), torch.zeros(0)
    if rng.random() < config.neighbour:
        beside = another()
        beside = beside[: int(rng.uniform(0.2, config.neighbour_max) * SAMPLE_RATE) // HOP * HOP]
        if rng.random() < 0.5:
            before = beside[: len(beside) // HOP * HOP]
        else:
            after = beside
    if rng.random() < config.pause:
        before = torch.cat([before, _silence(rng, config, level)])
    if rng.random() < config.pause:
        after = torch.cat([_silence(rng, config, level), after])
    waveform = torch.cat([before, piece.waveform, after])
    if rng.random() < config.gain:
        waveform = waveform * 10 ** (rng.uniform(config.gain_min, config.gain_max) / 20)
    if rng.random() < config.offset:
        waveform = waveform + rng.uniform(-config.offset_max, config.offset_max)
    return replace(piece, waveform=waveform, first=len(before) // HOP)


def _silence(rng: np.random.Generator, config: SurroundingsConfig, level: Tensor) -> Tensor:
    """Up to ``config.pause_max`` seconds in whole frames: half of the time zeros, else noise below ``level``."""
    samples = int(rng.uniform(0.02, config.pause_max) * SAMPLE_RATE) // HOP * HOP
    if rng.random() < 0.5:
        return torch.zeros(samples)
    noise = colored_noise(rng, 1, samples, slope=rng.uniform(0.0, 2.0))[0]
    return noise * level * 10 ** (-rng.uniform(*_QUIET) / 20)
