"""The text stream of Moshi's inner monologue (Défossez et al. 2024, arXiv 2410.00037, section 3.4.4)."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spintok.export.errors import ExportError
from spintok.export.sequences.base import TextEncoder, TokenSequence, text_part
from spintok.export.sequences.speech_text import Word
from spintok.export.vocabulary import Vocabulary
from spintok.tokens import Tokens

__all__ = ["inner_monologue", "monologue"]


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
        words: the words, in the order of their starts.
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


def monologue(
    tokens: Tokens,
    words: Sequence[Word],
    vocabulary: Vocabulary,
    encode_text: TextEncoder,
    *,
    pad: int | None = None,
    end_of_pad: int | None = None,
    delay: float = 0.0,
) -> TokenSequence:
    """Speech with its inner monologue: for each frame a text id, then the id of its code.

    Moshi reads both in one step: ``ids.reshape(-1, 2)`` has its text stream and its first stream of audio.

    Args:
        tokens: the tokens of the speech.
        words, delay: see ``inner_monologue``.
        vocabulary: the vocabulary of an extended tokenizer.
        encode_text: text to ids.
        pad: the id of padding; by default ``silent_text`` of the vocabulary.
        end_of_pad: the id of the end of padding; by default ``begin_text``.

    Raises:
        ExportError: no tokens, words out of order or that are encoded as speech tokens, or an impossible id.
    """
    if not tokens.num_frames:
        raise ExportError("an utterance without tokens cannot be part of a sequence")
    pad = vocabulary.special("silent_text") if pad is None else pad
    end_of_pad = vocabulary.special("begin_text") if end_of_pad is None else end_of_pad
    if not 0 <= min(pad, end_of_pad) <= max(pad, end_of_pad) < vocabulary.size:
        raise ExportError(f"pad and end_of_pad are ids, 0 ... {vocabulary.size - 1}, got {pad} and {end_of_pad}")
    text = inner_monologue(
        words,
        tokens.num_frames,
        tokens.frame_rate,
        lambda word: text_part(word, vocabulary, encode_text).ids,
        pad=pad,
        end_of_pad=end_of_pad,
        delay=delay,
    )
    ids = np.stack([text, vocabulary.ids(tokens.codes)], axis=1).ravel().astype(np.int32)
    mask = np.ones(ids.size, dtype=bool)
    mask[0] = False
    return TokenSequence(ids, mask)
