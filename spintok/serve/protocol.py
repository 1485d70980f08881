"""The messages of a session, in both directions. ``docs/reference/live.md`` describes them for clients.

A client sends text messages, which are JSON objects with a ``type``, and binary messages, which are PCM samples.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spintok.tokens import Tokens

__all__ = ["LABELS", "ProtocolError", "Start", "parse", "pcm_samples", "tokens_message"]

SampleFormat = Literal["s16le", "f32le"]

MIN_RATE, MAX_RATE = 4000, 192_000

LABELS = ("listen", "answer", "no_answer")
"""The states that a language model's classifier may send back: the speaker goes on; the turn has ended and an answer is
due; it has ended and needs none. Source: Wang et al. 2024, "Freeze-Omni", section 3.3."""


class ProtocolError(ValueError):
    """A client sent what no client may send; the message is its reason for the client."""


@dataclass(frozen=True)
class Start:
    """The first message of a session.

    Attributes:
        sample_rate: samples per second of the PCM that follows.
        format: 16-bit integers or 32-bit floats, little-endian, one channel.
        features: a layer whose features are sent beside the codes, or None.
        turns: whether the events ``speech_start`` and ``speech_end`` are sent.
        voice: the voice in which the tokens are played back, or None.
        state: the state of an earlier session to go on with, or None.
    """

    sample_rate: int
    format: SampleFormat
    features: int | None = None
    turns: bool = False
    voice: str | None = None
    state: bytes | None = None


def parse(text: str) -> dict[str, Any]:
    """The object of a text message. Raises ``ProtocolError`` unless it is one with a ``type``."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("text messages must be JSON objects") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ProtocolError('text messages must be JSON objects with a "type"')
    return message


def start(message: dict[str, Any]) -> Start:
    """The settings of a session. Raises ``ProtocolError`` if they are not usable."""
    if message["type"] != "start":
        raise ProtocolError('the first message must be {"type": "start", "sample_rate": ..., "format": "s16le"}')
    known = {"type", "sample_rate", "format", "features", "turns", "voice", "state"}
    if unknown := sorted(set(message) - known):
        raise ProtocolError(f"start has no {unknown[0]!r}; it takes {', '.join(sorted(known))}")
    rate = message.get("sample_rate")
    if type(rate) is not int or not MIN_RATE <= rate <= MAX_RATE:
        raise ProtocolError(f"sample_rate must be an integer of {MIN_RATE} ... {MAX_RATE} Hz")
    sample_format = message.get("format", "s16le")
    if sample_format not in ("s16le", "f32le"):
        raise ProtocolError('format must be "s16le" or "f32le"')
    features, turns, voice = message.get("features"), message.get("turns", False), message.get("voice")
    if features is not None and type(features) is not int:
        raise ProtocolError("features must be the number of a layer")
    if type(turns) is not bool:
        raise ProtocolError("turns must be true or false")
    if voice is not None and not isinstance(voice, str):
        raise ProtocolError("voice must be the name of a voice")
    return Start(rate, sample_format, features, turns, voice, _state(message.get("state")))


def label(message: dict[str, Any]) -> str:
    """The label of a turn. Raises ``ProtocolError`` if there is no such label."""
    found = message.get("label")
    if found not in LABELS:
        raise ProtocolError(f"label must be one of {', '.join(LABELS)}")
    return str(found)


def pcm_samples(data: bytes, sample_format: SampleFormat) -> NDArray[np.float32]:
    """Samples in -1 ... 1 of a binary message. Raises ``ProtocolError`` if it is no whole number of usable samples."""
    size = 2 if sample_format == "s16le" else 4
    if len(data) % size:
        raise ProtocolError(f"binary messages must hold whole samples of {size} bytes, got {len(data)} bytes")
    if sample_format == "s16le":
        return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
    samples = np.frombuffer(data, "<f4").astype(np.float32)
    if not np.isfinite(samples).all() or (samples.size and np.abs(samples).max() > 2.0**15):
        raise ProtocolError("f32le samples must be finite and in -1 ... 1")
    return samples


def tokens_message(tokens: Tokens, first_frame: int, *, continues: bool) -> dict[str, Any]:
    """The codes of the frames from ``first_frame`` on.

    ``continues`` says that the first run goes on from the message before: its durations add up.
    """
    return {
        "type": "tokens",
        "start": first_frame,
        "codes": tokens.codes.tolist(),
        "units": tokens.units.tolist(),
        "durations": tokens.durations.tolist(),
        "continues": continues,
    }


def _state(text: Any) -> bytes | None:
    if text is None:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise ProtocolError("state must be the text that the server sent as a state") from None
