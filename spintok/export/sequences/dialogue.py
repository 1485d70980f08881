"""Two-channel dialogue as one sequence, flattened as in OmniFlatten (Zhang et al. 2024, arXiv 2410.17799).

Half-duplex: turn by turn, each turn's speech and text. Full-duplex: chunk by chunk of a fixed number of frames.
"""

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
    """What one speaker says before the other does."""

    speaker: Literal["user", "assistant"]
    tokens: Tokens
    text: str


def half_duplex(
    turns: Sequence[Turn], vocabulary: Vocabulary, encode_text: TextEncoder, *, form: Form | UnitEncoder = "frames"
) -> TokenSequence:
    """Four streams turn by turn: the user's speech, then text; the assistant's text, then speech.

    ``[SOS] user speech [EOS][SOT] user text [EOT][SOT] assistant text [EOT][SOS] assistant speech [EOS] ...``. All
    that the model has to give counts for the loss: everything but the user's speech.
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
    """Two channels that run at once, in chunks of ``speech_chunk`` frames.

    With ``text``, three streams: each chunk is the user's speech, ``text_chunk`` ids of the assistant's text, the
    assistant's speech. Without, two streams: the user's speech, the assistant's speech. A code a frame: streams
    stay in step.

    Args:
        channels: the user's and the assistant's tokens; the shorter one ends in silence.
        vocabulary: needs ``silent_speech``, and for three streams ``silent_text``.
        text: what the assistant says and when. A text's ids wait for the chunk in which it starts, then for their
            turn; chunks without text hold ``silent_text``. Text that outlasts the speech adds chunks of silence.
        encode_text: text to ids.
        speech_chunk, text_chunk: ids of one stream in one chunk.
        silent: per channel, (T,) True where it is silent: those frames become ``silent_speech``.
        cap: the most frames in a row in which both channels are silent; the others are dropped from both, and the
            times in ``text`` move with them.
        user_loss: whether predicting the user's channel counts.

    Raises:
        ExportError: other than two channels, text without times or without ``encode_text``, or masks that do not fit.
    """
    if len(channels) != 2:
        raise ExportError(f"a dialogue has two channels, the user's and the assistant's; got {len(channels)}")
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
    """(T,) True in stretches of at least ``shortest`` frames whose codes are all ``silent_codes``."""
    silent = np.isin(tokens.codes, list(silent_codes))
    length, starts = _stretches(silent)
    return silent & (np.repeat(length, length) >= shortest) if starts.size else silent


def cap_silence(silent: Sequence[Mask], cap: int) -> Mask:
    """(T,) False on the frames past the first ``cap`` of each stretch in which all channels are silent."""
    all_silent: Mask = np.logical_and.reduce(list(silent))
    length, starts = _stretches(all_silent)
    place = np.arange(all_silent.size) - np.repeat(starts, length)
    return ~(all_silent & (place >= cap))


def _stretches(values: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Length and start of each stretch of equal values."""
    if not values.size:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    starts = np.flatnonzero(np.diff(values, prepend=~values[:1]))
    return np.diff(starts, append=values.size), starts


def _masks(channels: Sequence[Tokens], silent: Sequence[Mask] | None, length: int) -> list[Mask]:
    found = []
    for number, tokens in enumerate(channels):
        mask = np.zeros(tokens.num_frames, dtype=bool) if silent is None else np.asarray(silent[number])
        if mask.shape != (tokens.num_frames,) or mask.dtype != bool:
            raise ExportError(f"channel {number}: silent must be {tokens.num_frames} truth values, one a frame")
        found.append(np.pad(mask, (0, length - mask.size), constant_values=True))
    return found


def _stream(tokens: Tokens, mask: Mask, vocabulary: Vocabulary) -> NDArray[np.int32]:
    ids = np.full(mask.size, vocabulary.special("silent_speech"), dtype=np.int32)
    ids[: tokens.num_frames] = vocabulary.ids(tokens.codes)
    return np.where(mask, np.int32(vocabulary.special("silent_speech")), ids)


def _text_ids(
    text: Sequence[Word], vocabulary: Vocabulary, encode_text: TextEncoder | None, kept: Mask, frame_rate: int
) -> list[tuple[int, list[int], str]]:
    """The frame at which each text may start, among those kept, its ids, and the text."""
    if encode_text is None:
        raise ExportError("text needs encode_text, which makes ids of it")
    before = np.concatenate([[0], np.cumsum(kept)])
    found = []
    last = 0.0
    for word in text:
        if not last <= word.start:
            raise ExportError(f"the text {word.text[:40]!r} at {word.start:.2f} s is not after the one before it")
        last = word.start
        frame = min(round(word.start * frame_rate), kept.size)
        found.append((int(before[frame]), text_part(word.text, vocabulary, encode_text).ids.tolist(), word.text))
    return found


def _chunked(stream: NDArray[np.int32], size: int, fill: int) -> NDArray[np.int32]:
    """(chunks, size), the last chunk filled up."""
    return np.pad(stream, (0, -stream.size % size), constant_values=fill).reshape(-1, size)


def _text_chunks(
    queue: list[tuple[int, list[int], str]], chunks: int, speech_chunk: int, text_chunk: int, fill: int
) -> tuple[NDArray[np.int32], dict[int, str]]:
    """The text's ids a chunk, and the text that begins at each of them, by its place among them."""
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
    """Chunk by chunk, the streams in their order."""
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
                    # Text is written whole where it begins: pieces of a word have no text of their own.
                    marks.append(said.get(number * width + place - first, ""))
        return "".join(marks)

    return TokenSequence(ids.ravel().astype(np.int32), flat_mask, spelling)
