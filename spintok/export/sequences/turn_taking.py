"""Two-channel dialogues from turns that were recorded one by one: pauses, barge-ins and back-channels.

What a full-duplex model has to tell apart is rare in recorded turns: a user who interrupts, so that the assistant
should stop, and one who only says "mhm", so that it should go on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spintok.export.errors import ExportError
from spintok.export.sequences.speech_text import Word
from spintok.tokens import Tokens

__all__ = ["Speaker", "Spoken", "TurnTaking", "TwoChannels", "take_turns"]

Speaker = Literal["user", "assistant"]

# An interruption begins in this part of a turn: not with its first words, and not at its end, where a turn is due.
_INTERRUPTED = (0.25, 0.9)
_SHORTEST = 2.0
"""Seconds: shorter turns get no back-channel."""


@dataclass(frozen=True)
class TurnTaking:
    """How turns follow each other.

    Attributes:
        gap: the least and the greatest silence between turns, in seconds.
        barge_in: the probability that a user's turn interrupts the assistant's turn before it.
        reaction: the least and the greatest time for which an interrupted assistant goes on, in seconds.
        back_channel: the probability that the user says a back-channel while the assistant goes on, for each turn of
            the assistant that lasts at least 2 s and is not interrupted.

    Raises:
        ExportError: a probability outside of 0 ... 1, or a range that is negative or upside down.
    """

    gap: tuple[float, float] = (0.2, 0.8)
    barge_in: float = 0.0
    reaction: tuple[float, float] = (0.2, 0.6)
    back_channel: float = 0.0

    def __post_init__(self) -> None:
        for name in ("barge_in", "back_channel"):
            if not 0 <= getattr(self, name) <= 1:
                raise ExportError(f"{name} is a probability, 0 ... 1, got {getattr(self, name)}")
        for name in ("gap", "reaction"):
            least, most = getattr(self, name)
            if not 0 <= least <= most:
                raise ExportError(f"{name} is a range of seconds from 0 on, the least first, got {least} {most}")


class Spoken(NamedTuple):
    """A turn: who speaks, its tokens, and for text the words of the assistant with times from the turn's start."""

    speaker: Speaker
    tokens: Tokens
    words: Sequence[Word] = ()


class TwoChannels(NamedTuple):
    """A dialogue, as ``full_duplex`` takes it.

    Attributes:
        channels: the tokens of the user and of the assistant, T frames each, with code 0 where they are silent.
        silent: (T,) bool for each channel, True where it is silent.
        words: the assistant's words, with times from the start of the dialogue.
    """

    channels: tuple[Tokens, Tokens]
    silent: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    words: list[Word]


def take_turns(
    turns: Sequence[Spoken], rng: np.random.Generator, manner: TurnTaking, back_channels: Sequence[Tokens] = ()
) -> TwoChannels:
    """Place turns on two channels.

    A turn starts after the end of the one before it and a gap. A barge-in starts in the last three quarters of the
    assistant's turn instead, and what the assistant would have said after its reaction, tokens and words, is left out.

    Args:
        turns: the turns, in order, with tokens of one tokenizer.
        rng: decides; equal generators give equal dialogues.
        manner: pauses and probabilities.
        back_channels: short utterances of the user, one of which is drawn for each back-channel.

    Raises:
        ExportError: no turns, a turn without tokens, or no back-channels although some are due.
    """
    if not turns or not all(turn.tokens.num_frames for turn in turns):
        raise ExportError("a dialogue needs turns, and each of them tokens")
    if manner.back_channel and not any(tokens.num_frames for tokens in back_channels):
        raise ExportError("back-channels need utterances of the user to draw from")
    rate = turns[0].tokens.frame_rate
    spans = _spans(turns, rng, manner, rate)
    pieces = [
        (turn.speaker == "assistant", start, turn.tokens.codes[: end - start])
        for turn, (start, end) in zip(turns, spans, strict=True)
    ]
    choices = [tokens.codes for tokens in back_channels if tokens.num_frames]
    for number, (turn, (start, end)) in enumerate(zip(turns, spans, strict=True)):
        alone = number + 1 == len(turns) or spans[number + 1][0] >= end
        due = turn.speaker == "assistant" and alone and end - start >= _SHORTEST * rate
        if not due or rng.random() >= manner.back_channel:
            continue
        codes = choices[rng.integers(len(choices))]
        if len(codes) <= end - start:
            pieces.append((False, int(rng.integers(start, end - len(codes) + 1)), codes))
    length = max(start + len(codes) for _, start, codes in pieces)
    laid = np.zeros((2, length), dtype=np.int32)
    silent = np.ones((2, length), dtype=bool)
    for assistant, start, codes in pieces:
        laid[int(assistant), start : start + len(codes)] = codes
        silent[int(assistant), start : start + len(codes)] = False
    first = turns[0].tokens
    user, assistant_tokens = (Tokens(row, first.codebook_size, grid=first.grid) for row in laid)
    words = [
        Word(word.text, word.start + start / rate, min(word.end, (end - start) / rate) + start / rate)
        for turn, (start, end) in zip(turns, spans, strict=True)
        if turn.speaker == "assistant"
        for word in turn.words
        if word.start < (end - start) / rate
    ]
    return TwoChannels((user, assistant_tokens), (silent[0], silent[1]), words)


def _spans(turns: Sequence[Spoken], rng: np.random.Generator, manner: TurnTaking, rate: float) -> list[tuple[int, int]]:
    """The first frame of each turn, and the one after its last."""
    spans: list[tuple[int, int]] = []
    for number, turn in enumerate(turns):
        start = 0
        if number:
            before, stop = spans[-1]
            # An interrupted assistant may go on for longer than the user spoke.
            start = max(end for _, end in spans) + round(rng.uniform(*manner.gap) * rate)
            follows = turn.speaker == "user" and turns[number - 1].speaker == "assistant"
            if follows and rng.random() < manner.barge_in:
                start = before + round(rng.uniform(*_INTERRUPTED) * (stop - before))
                reacted = start + round(rng.uniform(*manner.reaction) * rate)
                spans[-1] = before, max(before + 1, min(stop, reacted))
        spans.append((start, start + turn.tokens.num_frames))
    return spans
