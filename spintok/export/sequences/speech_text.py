"""Sequence of speech and text: recognition, synthesis, and words of both kinds by turns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from spintok.export.errors import ExportError
from spintok.export.sequences.base import (
    Form,
    Part,
    TextEncoder,
    TokenSequence,
    UnitEncoder,
    join,
    marker,
    speech_part,
    text_part,
)
from spintok.export.vocabulary import Vocabulary
from spintok.tokens import Tokens

__all__ = ["Word", "interleave", "speech_to_text", "text_to_speech"]

Loss = Literal["answer", "all"]
"""What counts: what the model has to give, from its first id to its end mark; or all but the first id."""


@dataclass(frozen=True)
class Word:
    """A word, or more, and when it is said, in seconds."""

    text: str
    start: float
    end: float


def speech_to_text(
    tokens: Tokens,
    text: str,
    vocabulary: Vocabulary,
    encode_text: TextEncoder,
    *,
    form: Form | UnitEncoder = "units",
    loss: Loss = "answer",
) -> TokenSequence:
    """``[ASR][SOS] speech [EOS][SOT] text [EOT]``, as in OmniFlatten (Zhang et al. 2024, arXiv 2410.17799)."""
    given = loss == "all"
    return join(
        [
            marker("asr", vocabulary, given),
            marker("begin_speech", vocabulary, given),
            speech_part(tokens, vocabulary, form, given),
            marker("end_speech", vocabulary, given),
            marker("begin_text", vocabulary, given),
            text_part(text, vocabulary, encode_text),
            marker("end_text", vocabulary),
        ]
    )


def text_to_speech(
    tokens: Tokens,
    text: str,
    vocabulary: Vocabulary,
    encode_text: TextEncoder,
    *,
    form: Form | UnitEncoder = "units",
    loss: Loss = "answer",
) -> TokenSequence:
    """``[TTS][SOT] text [EOT][SOS] speech [EOS]``, as in OmniFlatten (Zhang et al. 2024, arXiv 2410.17799)."""
    given = loss == "all"
    return join(
        [
            marker("tts", vocabulary, given),
            marker("begin_text", vocabulary, given),
            text_part(text, vocabulary, encode_text, given),
            marker("end_text", vocabulary, given),
            marker("begin_speech", vocabulary, given),
            speech_part(tokens, vocabulary, form),
            marker("end_speech", vocabulary),
        ]
    )


def interleave(
    tokens: Tokens,
    alignment: Sequence[Word],
    vocabulary: Vocabulary,
    encode_text: TextEncoder,
    rng: np.random.Generator,
    *,
    text_words: tuple[int, int] = (10, 30),
    speech_words: tuple[int, int] = (5, 15),
    form: Form | UnitEncoder = "units",
) -> TokenSequence:
    """``[Text] the words of a span [Speech] the tokens of the next span [Text] ...``.

    After SpiRit-LM (Nguyen et al. 2024, arXiv 2402.05755): the modality changes at word boundaries only, spans are
    drawn at random, and speech is de-duplicated. The first span's modality is drawn too, and every id counts.

    Args:
        tokens: of the whole utterance.
        alignment: its words in order, with times; speech before the first word and after the last is left out.
        vocabulary, encode_text: how speech and text become ids.
        rng: draws the spans.
        text_words, speech_words: the fewest and the most words of a span; the last span takes what is left.
        form: of the speech.

    Raises:
        ExportError: no alignment, words out of order, or words past the end of the tokens.
    """
    bounds = _frame_bounds(tokens, alignment)
    for low, high in (text_words, speech_words):
        if not 1 <= low <= high:
            raise ExportError(f"a span holds from 1 word up, got {low} to {high}")
    parts: list[Part] = []
    as_text = bool(rng.integers(2))
    first = 0
    while first < len(alignment):
        low, high = text_words if as_text else speech_words
        last = min(first + int(rng.integers(low, high + 1)), len(alignment))
        if as_text:
            text = " ".join(word.text for word in alignment[first:last])
            parts += [marker("text", vocabulary), text_part(text, vocabulary, encode_text)]
        else:
            codes = tokens.codes[bounds[first][0] : bounds[last - 1][1]]
            piece = Tokens(codes, tokens.codebook_size)
            parts += [marker("speech", vocabulary), speech_part(piece, vocabulary, form)]
        first, as_text = last, not as_text
    return join(parts)


def _frame_bounds(tokens: Tokens, alignment: Sequence[Word]) -> list[tuple[int, int]]:
    """The first frame of each word and the one after its last, at least one frame each."""
    if not alignment:
        raise ExportError("interleaving needs the time of each word, and this text has no alignment")
    bounds = []
    before = 0.0
    for word in alignment:
        if not before <= word.start <= word.end:
            raise ExportError(f"the word {word.text!r} at {word.start:.2f} s is not after the one before it")
        before = word.start
        start = round(word.start * tokens.frame_rate)
        end = max(round(word.end * tokens.frame_rate), start + 1)
        # The last frame's receptive field ends 25 ms after it starts: 2 frames may be wanting at the end.
        if start >= tokens.num_frames or end > tokens.num_frames + 2:
            raise ExportError(
                f"the word {word.text!r} ends at {word.end:.2f} s, after the {tokens.seconds:.2f} s of tokens"
            )
        bounds.append((start, min(end, tokens.num_frames)))
    return bounds
