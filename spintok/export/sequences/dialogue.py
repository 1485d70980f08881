"""Two-channel dialogue as one sequence, as in OmniFlatten (Zhang et al. 2024, arXiv 2410.17799).

Half-duplex dialogue is written turn by turn, full-duplex dialogue in chunks of a fixed number of frames.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

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
from spintok.export.sequences.speech_text import Word
from spintok.export.vocabulary import Vocabulary
from spintok.tokens import Tokens

__all__ = ["Turn", "cap_silence", "full_duplex", "half_duplex", "silent_frames"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Turn:
    """What one speaker says until the other one speaks."""

    speaker: Literal["user", "assistant"]
    tokens: Tokens
    text: str


def half_duplex(
    turns: Sequence[Turn], vocabulary: Vocabulary, encode_text: TextEncoder, *, form: Form | UnitEncoder = "frames"
) -> TokenSequence:
    """Speech and text of each turn: of the user speech before text, of the assistant text before speech.

    ``[SOS] user speech [EOS][SOT] user text [EOT][SOT] assistant text [EOT][SOS] assistant speech [EOS] ...``.
    Everything but the user's speech has a loss.

    Args:
        turns: the turns, in order.
        vocabulary: the vocabulary of the extended tokenizer.
        encode_text: text to ids.
        form: the form of the speech.

    Raises:
        ExportError: no turns, or a turn without speech or text.
    """
    if not turns:
        raise ExportError("a dialogue needs at least one turn")
    parts: list[Part] = []
    for turn in turns:
        ours = turn.speaker == "assistant"
        spoken = [
            marker("begin_speech", vocabulary, ours),
            speech_part(turn.tokens, vocabulary, form, ours),
            marker("end_speech", vocabulary, ours),
        ]
        written = [
            marker("begin_text", vocabulary),
            text_part(turn.text, vocabulary, encode_text),
            marker("end_text", vocabulary),
        ]
        parts += written + spoken if ours else spoken + written
    return join(parts)


def full_duplex(
    channels: Sequence[Tokens],
    vocabulary: Vocabulary,
    text: Sequence[Word] | None = None,
    encode_text: TextEncoder | None = None,
    *,
    speech_chunk: int = 10,
    text_chunk: int = 2,
    silent: Sequence[Mask] | None = None,
    cap: int | None = None,
    user_loss: bool = False,
) -> TokenSequence:
    """Two channels in parallel, in chunks of ``speech_chunk`` frames, one code per frame.

    With ``text`` a chunk has three streams: the user's speech, ``text_chunk`` ids of the assistant's text, and the
    assistant's speech. Without, it has two: the user's and the assistant's speech.

    Args:
        channels: the tokens of the user and of the assistant. The shorter channel is padded with silence.
        vocabulary: one with ``silent_speech`` and, for three streams, ``silent_text``.
        text: the words of the assistant. Their ids are written from the chunk that contains the frame in which they
            start (rounded down, as Moshi does), after the ids that precede them; chunks without text have
            ``silent_text``. If text is left at the end of the speech, chunks of silence are added.
        encode_text: text to ids.
        speech_chunk: frames of each channel in a chunk.
        text_chunk: text ids in a chunk.
        silent: (T,) bool for each channel, True at frames to replace by ``silent_speech``.
        cap: the maximum number of frames for which both channels may be silent; the rest of the silence is removed,
            and the times of ``text`` are shifted with it.
        user_loss: whether the user's channel has a loss.

    Raises:
        ExportError: not two channels, text out of order or without ``encode_text``, or masks of another length.
    """
    if len(channels) != 2:
        raise ExportError(f"a dialogue has two channels, one of the user and one of the assistant; got {len(channels)}")
    if min(speech_chunk, text_chunk) < 1 or (cap is not None and cap < 1):
        raise ExportError("speech_chunk, text_chunk and cap must be at least 1")
    length = max(tokens.num_frames for tokens in channels)
    if not length:
        raise ExportError("an utterance without tokens cannot be part of a sequence")
    masks = _masks(channels, silent, length)
    streams = [_stream(tokens, mask, vocabulary) for tokens, mask in zip(channels, masks, strict=True)]
    kept = np.ones(length, dtype=bool) if cap is None else cap_silence(masks, cap)
    queue = None if text is None else _text_ids(text, vocabulary, encode_text, kept, channels[0].frame_rate)
    chunks = [_chunked(stream[kept], speech_chunk, vocabulary.special("silent_speech")) for stream in streams]
    if queue is None:
        return _flatten([(chunks[0], user_loss), (chunks[1], True)], vocabulary, {})
    rows, said = _text_chunks(queue, len(chunks[0]), speech_chunk, text_chunk, vocabulary.special("silent_text"))
    missing = ((0, len(rows) - len(chunks[0])), (0, 0))
    user, assistant = (np.pad(c, missing, constant_values=vocabulary.special("silent_speech")) for c in chunks)
    return _flatten([(user, user_loss), (rows, True), (assistant, True)], vocabulary, said)


def silent_frames(tokens: Tokens, silent_codes: Collection[int], shortest: int = 5) -> Mask:
    """(T,) True in runs of at least ``shortest`` frames with codes out of ``silent_codes``."""
    silent = np.isin(tokens.codes, list(silent_codes))
    length, starts = _runs(silent)
    return silent & (np.repeat(length, length) >= shortest) if starts.size else silent


def cap_silence(silent: Sequence[Mask], cap: int) -> Mask:
    """(T,) False after the first ``cap`` frames of each run of frames in which all channels are silent."""
    all_silent: Mask = np.logical_and.reduce(list(silent))
    length, starts = _runs(all_silent)
    place = np.arange(all_silent.size) - np.repeat(starts, length)
    return ~(all_silent & (place >= cap))


def _runs(values: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Length and start of each run of equal values."""
    if not values.size:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    starts = np.flatnonzero(np.diff(values, prepend=~values[:1]))
    return np.diff(starts, append=values.size), starts


def _masks(channels: Sequence[Tokens], silent: Sequence[Mask] | None, length: int) -> list[Mask]:
    found = []
    for number, tokens in enumerate(channels):
        mask = np.zeros(tokens.num_frames, dtype=bool) if silent is None else np.asarray(silent[number])
        if mask.shape != (tokens.num_frames,) or mask.dtype != bool:
            raise ExportError(f"channel {number}: silent must be {tokens.num_frames} booleans, one per frame")
        found.append(np.pad(mask, (0, length - mask.size), constant_values=True))
    return found


def _stream(tokens: Tokens, mask: Mask, vocabulary: Vocabulary) -> NDArray[np.int32]:
    ids = np.full(mask.size, vocabulary.special("silent_speech"), dtype=np.int32)
    ids[: tokens.num_frames] = vocabulary.ids(tokens.codes)
    return np.where(mask, np.int32(vocabulary.special("silent_speech")), ids)


def _text_ids(
    text: Sequence[Word], vocabulary: Vocabulary, encode_text: TextEncoder | None, kept: Mask, frame_rate: int
) -> list[tuple[int, list[int], str]]:
    """For each text the first frame for it, counted in kept frames, its ids, and the text."""
    if encode_text is None:
        raise ExportError("text needs encode_text")
    before = np.concatenate([[0], np.cumsum(kept)])
    found = []
    last = 0.0
    for word in text:
        if not last <= word.start:
            raise ExportError(f"the text {word.text[:40]!r} at {word.start:.2f} s starts before the previous one")
        last = word.start
        # The frame that contains the start: text never comes before it is spoken. 0.58 * 50 is slightly less than 29.
        frame = min(math.floor(word.start * frame_rate + 1e-6), kept.size)
        found.append((int(before[frame]), text_part(word.text, vocabulary, encode_text).ids.tolist(), word.text))
    return found


def _chunked(stream: NDArray[np.int32], size: int, fill: int) -> NDArray[np.int32]:
    """(chunks, size), with the last chunk padded."""
    return np.pad(stream, (0, -stream.size % size), constant_values=fill).reshape(-1, size)


def _text_chunks(
    queue: list[tuple[int, list[int], str]], chunks: int, speech_chunk: int, text_chunk: int, fill: int
) -> tuple[NDArray[np.int32], dict[int, str]]:
    """The text ids of each chunk, (chunks, text_chunk), and the texts by the index of their first id."""
    rows: list[list[int]] = []
    said: dict[int, str] = {}
    waiting: list[int] = []
    starts: list[str | None] = []
    pending = list(queue)
    while len(rows) < chunks or waiting or pending:
        end = (len(rows) + 1) * speech_chunk
        while pending and (pending[0][0] < end or len(rows) >= chunks):
            _, ids, text = pending.pop(0)
            waiting += ids
            starts += [text, *[None] * (len(ids) - 1)] if ids else []
        row, waiting = waiting[:text_chunk], waiting[text_chunk:]
        for place in range(len(row)):
            if starts[place] is not None:
                said[len(rows) * text_chunk + place] = str(starts[place])
        starts = starts[text_chunk:]
        rows.append(row + [fill] * (text_chunk - len(row)))
    return np.array(rows, dtype=np.int32), said


def _flatten(
    streams: Sequence[tuple[NDArray[np.int32], bool]], vocabulary: Vocabulary, said: dict[int, str]
) -> TokenSequence:
    """Concatenate the streams of each chunk, chunk after chunk."""
    ids = np.concatenate([rows for rows, _ in streams], axis=1)
    mask = np.concatenate([np.full(rows.shape[1], loss) for rows, loss in streams])
    flat_mask = np.tile(mask, len(ids))
    flat_mask[:1] = False
    width = streams[1][0].shape[1] if len(streams) == 3 else 0
    first = streams[0][0].shape[1]

    def spelling() -> str:
        marks = []
        for number, row in enumerate(ids.tolist()):
            for place, value in enumerate(row):
                if value >= vocabulary.first_id:
                    marks.append(vocabulary.spell([value]))
                else:
                    # The whole text is written at its first id, because ids are pieces of words.
                    marks.append(said.get(number * width + place - first, ""))
        return "".join(marks)

    return TokenSequence(ids.ravel().astype(np.int32), flat_mask, spelling)
