"""Draw spans of frames to mask."""

import numpy as np
from numpy.typing import NDArray

from spintok.train.recipe_sections import MaskConfig

__all__ = ["span_mask"]


def span_mask(rng: np.random.Generator, frames: int, config: MaskConfig) -> NDArray[np.bool_]:
    """(``frames``,) True where masked: spans of ``length`` frames at random starts, which may overlap.

    With a probability of 0 nothing is masked. Else the number of spans is ``probability`` times ``frames``, rounded up
    or down at random, and at least one. Starts are drawn without replacement from those whose span fits. If the
    recording is shorter than two spans, the span length is half of it. At least one frame remains unmasked, unless
    there is only one. Source: Baevski et al. 2020, "wav2vec 2.0", section 3.1.
    """
    if frames < 1:
        raise ValueError(f"frames must be at least 1, got {frames}")
    if not config.probability:
        return np.zeros(frames, dtype=np.bool_)
    length = min(config.length, max(1, frames // 2))
    places = frames - length + 1
    count = min(places, max(1, int(config.probability * frames + rng.random())))
    starts = rng.choice(places, count, replace=False)
    mask = np.zeros(frames, dtype=np.bool_)
    mask[(starts[:, None] + np.arange(length)).ravel()] = True
    if mask.all() and frames > 1:
        mask[rng.integers(frames)] = False
    return mask
