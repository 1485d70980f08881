"""The text stream of Moshi's inner monologue (Défossez et al. 2024, arXiv 2410.00037, section 3.4.4)."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spintok.export.errors import ExportError
from spintok.export.sequences.base import TextEncoder
from spintok.export.sequences.speech_text import Word

__all__ = ["inner_monologue"]


def inner_monologue(
    words: Sequence[Word],
    num_frames: int,
    frame_rate: float,
    encode_text: TextEncoder,
    *,
    pad: int,
    end_of_pad: int,
    delay: float = 0.0,
) -> NDArray[np.int32]:
    """One text id per frame, to be stacked above the codes of the same frames.

    The ids of a word start at the frame that contains its start, rounded down, or after those of the word before, if
    they take longer than it does. All other frames hold ``pad``, except the last one before a word, which holds
    ``end_of_pad``. As in Moshi's fine-tuning code there is none at the first frame, nor between words without a gap.

    Args:
        words: in order of their start.
        num_frames: T. Ids that do not fit are left out.
        frame_rate: frames per second; 12.5 for Mimi.
        encode_text: text to ids.
        pad: the id of padding; 3 for Moshi.
        end_of_pad: the id of the end of padding; 0 for Moshi.
        delay: seconds by which the text comes later than the speech; negative if it comes earlier.

    Returns:
        (T,) int32.

    Raises:
        ExportError: words out of order.
    """
    stream = np.full(num_frames, pad, dtype=np.int32)
    free, last = 0, -math.inf
    for word in words:
        if word.start < last:
            raise ExportError(f"the word {word.text!r} at {word.start:.2f} s starts before the previous one")
        last = word.start
        ids = np.fromiter(encode_text(word.text), dtype=np.int32)
        # The tolerance is for products that are slightly below a whole number, such as 0.58 * 50.
        first = max(free, math.floor((word.start + delay) * frame_rate + 1e-6))
        if not ids.size or first >= num_frames:
            continue
        if first > free:
            stream[first - 1] = end_of_pad
        free = min(first + ids.size, num_frames)
        stream[first:free] = ids[: free - first]
    return stream
