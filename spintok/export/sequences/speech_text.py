"""Sequences of speech and text: recognition, synthesis, and interleaved words."""

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
"""Which ids have a loss: those that the model has to produce, with their end token; or all but the first id."""


@dataclass(frozen=True)
class Word:
    """One or more words with their start and end, in seconds."""

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
    """Text and speech in turn: ``[Text] words of a span [Speech] tokens of the next span [Text] ...``.

    As in SpiRit-LM (Nguyen et al. 2024, arXiv 2402.05755) the modality changes at word boundaries, rounded to the
    nearest frame, and the lengths of the spans are random. The modality of the first span is random too, and every id
    but the first has a loss.

    Args:
        tokens: the tokens of the whole utterance.
        alignment: its words in order. Speech before the first word and after the last is left out.
        vocabulary: the vocabulary of the extended tokenizer.
        encode_text: text to ids.
        rng: draws the spans.
        text_words: the least and the greatest number of words in a span of text; the last span may be shorter.
        speech_words: the same for spans of speech.
        form: the form of the speech.

    Raises:
        ExportError: no alignment, words out of order, or words after the end of the tokens.
    """
    bounds = _frame_bounds(tokens, alignment)
    for low, high in (text_words, speech_words):
        if not 1 <= low <= high:
            raise ExportError(f"a span has at least 1 word, got {low} to {high}")
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
            piece = Tokens(codes, tokens.codebook_size, grid=tokens.grid)
            parts += [marker("speech", vocabulary), speech_part(piece, vocabulary, form)]
        first, as_text = last, not as_text
    return join(parts)


def _frame_bounds(tokens: Tokens, alignment: Sequence[Word]) -> list[tuple[int, int]]:
    """The first frame of each word and the frame after its last one; every word has at least one frame."""
    if not alignment:
        raise ExportError("interleaving needs the time of each word, and this text has no alignment")
    bounds = []
    before = 0.0
    for word in alignment:
        if not before <= word.start <= word.end:
            raise ExportError(f"the word {word.text!r} at {word.start:.2f} s starts before the previous one")
        before = word.start
        start = round(word.start * tokens.frame_rate)
        end = max(round(word.end * tokens.frame_rate), start + 1)
        # The last frame covers 25 ms, so up to 2 frames at the end of the audio do not exist.
        if start >= tokens.num_frames or end > tokens.num_frames + 2:
            raise ExportError(
                f"the word {word.text!r} ends at {word.end:.2f} s, after the {tokens.seconds:.2f} s of tokens"
            )
        bounds.append((start, min(end, tokens.num_frames)))
    return bounds
