"""Spans of frames to mask."""

import numpy as np
from numpy.typing import NDArray

from spintok.train.recipe import MaskConfig

__all__ = ["span_mask"]


def span_mask(rng: np.random.Generator, frames: int, config: MaskConfig) -> NDArray[np.bool_]:
    """True (``frames``,) where masked: spans of ``length`` frames from random starts, which may overlap.

    ``probability`` times ``frames`` starts, rounded up or down at random, at least one, drawn without replacement from
    those whose span fits. In a recording shorter than two spans, a span is half of it; one frame stays unmasked
    unless there is only one. Source: Baevski et al. 2020, "wav2vec 2.0", section 3.1.
    """
    if frames < 1:
        raise ValueError(f"frames must be at least 1, got {frames}")
    length = min(config.length, max(1, frames // 2))
    places = frames - length + 1
    count = min(places, max(1, int(config.probability * frames + rng.random())))
    starts = rng.choice(places, count, replace=False)
    mask = np.zeros(frames, dtype=np.bool_)
    mask[(starts[:, None] + np.arange(length)).ravel()] = True
    if mask.all() and frames > 1:
        mask[rng.integers(frames)] = False
    return mask
