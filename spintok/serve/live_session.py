"""A session of a server: what its client has sent and asked for, and the messages that answer it."""

import asyncio
import base64
import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spintok.frames import SAMPLE_RATE, frames_to_seconds, num_samples
from spintok.serve.protocol import Start, tokens_message
from spintok.streaming.turns import TurnDetector, TurnEvent

if TYPE_CHECKING:
    from spintok.decoder.stream import DecoderStream
    from spintok.streaming.stream import Stream
    from spintok.streaming.tokens import StreamTokens

__all__ = ["LiveSession", "Message", "states_of"]

Message = dict[str, Any] | bytes | Exception | None
"""What a session has for its client: JSON, binary data that belong to the JSON before, a failure, or its end."""

OUTBOX = 64
"""Messages that may wait for a client that reads slowly; until it reads, its samples wait too."""

_STATE = object()


class LiveSession:
    """One client's stream. The client's task fills it, and the thread of the steps empties it.

    Args:
        start: what the client asked for.
        stream: a stream of the pool that is stepped.
        wake: called when there is something to do.
        backlog: samples that may wait before ``feed`` does.
        detector: finds turns, if they are asked for.
        speaker: speaks the tokens, if a voice is asked for.

    Attributes:
        opened: when it began, on the monotonic clock.
        outbox: messages for the client.
        over: nothing more will come, or the client has gone.
    """

    def __init__(
        self,
        start: Start,
        stream: "Stream",
        wake: Callable[[], None],
        backlog: float,
        detector: TurnDetector | None = None,
        speaker: "DecoderStream | None" = None,
    ) -> None:
        self.start = start
        self.stream = stream
        self.opened = time.monotonic()
        self.outbox: asyncio.Queue[Message] = asyncio.Queue()
        self.over = False
        self._wake = wake
        self._backlog = backlog
        self._detector = detector
        self._speaker = speaker
        self._inbox: deque[NDArray[np.float32] | object] = deque()
        self._samples = 0
        self._taken = 0
        self._ended = False
        self._labels: deque[str] = deque()
        self._room = asyncio.Event()

    async def feed(self, samples: NDArray[np.float32]) -> None:
        """Take samples, once there is room in the backlog."""
        while self._samples > self._backlog and not self.over:
            self._room.clear()
            await self._room.wait()
        if len(samples):
            self._inbox.append(samples)
            self._samples += len(samples)
            self._wake()

    def end(self) -> None:
        """Say that no more samples will come."""
        self._ended = True
        self._wake()

    def ask_state(self) -> None:
        """Send the state after all samples so far."""
        self._inbox.append(_STATE)
        self._wake()

    def label(self, label: str) -> None:
        """Take a label of the turn that is open, or was the last one."""
        self._labels.append(label)
        self._wake()

    async def receive(self) -> Message:
        """The next message for the client."""
        message = await self.outbox.get()
        # There is room for the next one.
        self._wake()
        return message

    def has_work(self) -> bool:
        """Whether a step would change anything."""
        if self.over or self.outbox.qsize() >= OUTBOX:
            return False
        if self._labels or self._ended or self.stream.session.due or any(item is _STATE for item in self._inbox):
            return True
        if self._detector is not None:
            # Turns are told as soon as they are heard.
            return bool(self._inbox)
        # At least one: rounding may find none missing where one is.
        return self._samples >= max(1.0, self._missing()) or self._samples > self._backlog

    def _missing(self) -> float:
        """How many samples have to come before the chunk can be complete."""
        stream = self.stream
        frames = stream.session.frames + stream.engine.policy.frames
        # Resampling may hold back some more, and may round by one.
        needed = num_samples(frames, stream.engine.grid) - stream.session.samples
        return needed * self.start.sample_rate / SAMPLE_RATE - 1

    def ahead(self, now: float) -> float:
        """By how many seconds what was taken of the client's audio exceeds the time since it began."""
        return self._taken / self.start.sample_rate - (now - self.opened)

    def take(self, most: int) -> list[NDArray[np.float32]]:
        """Samples for a step: up to ``most``, but none beyond a request for the state."""
        taken: list[NDArray[np.float32]] = []
        count = 0
        while count < most and self._inbox and self._inbox[0] is not _STATE:
            samples = self._inbox.popleft()
            assert isinstance(samples, np.ndarray)
            if count + len(samples) > most:
                self._inbox.appendleft(samples[most - count :])
                samples = samples[: most - count]
            taken.append(samples)
            count += len(samples)
        self._samples -= count
        self._taken += count
        self._room.set()
        return taken

    def advance(self, parts: Sequence[NDArray[np.float32]]) -> list[Message]:
        """Feed samples to the stream and the detector, in the thread of the steps. Returns events of turns."""
        events: list[TurnEvent] = []
        for samples in parts:
            resampled = self.stream.feed(samples, self.start.sample_rate)
            if self._detector is not None:
                events += self._detector.push(resampled)
        found: list[Message] = [_event(event) for event in events]
        while self._labels:
            label = self._labels.popleft()
            found.append({"type": "turn", "label": label})
            if label != "listen" and self._detector is not None:
                found += [_event(event) for event in self._detector.close()]
        if self._ended and not self._inbox:
            last = self.stream.finish()
            if self._detector is not None:
                found += [_event(event) for event in [*self._detector.push(last), *self._detector.close()]]
        return found

    def tokens(self, tokens: "StreamTokens", features: Tensor | None = None) -> list[Message]:
        """The tokens of a step, the features of their frames, and what they say."""
        message = tokens_message(tokens, tokens.start, continues=tokens.continues)
        found: list[Message] = [message]
        if features is not None:
            message["features"] = {"layer": self.start.features, "shape": list(features.shape)}
            found.append(features.float().cpu().numpy().astype("<f4").tobytes())
        if self._speaker is not None:
            found += _audio(self._speaker.push(tokens.codes))
        return found

    def answers(self) -> list[Message]:
        """What follows the tokens of a step: the state if it was asked for, and the end."""
        found: list[Message] = []
        if self.stream.session.due:
            return found
        while self._inbox and self._inbox[0] is _STATE:
            self._inbox.popleft()
            found.append({"type": "state", "state": self._state(), "frames": self.stream.num_frames})
        # Not ``self._ended``, which the client may have set since ``advance`` looked.
        if self.stream.session.ended:
            self.over = True
            if self._speaker is not None:
                found += _audio(self._speaker.close())
            frames = self.stream.num_frames
            found += [
                {"type": "end", "frames": frames, "seconds": frames_to_seconds(frames, self.stream.engine.grid)},
                None,
            ]
        return found

    def _state(self) -> str:
        parts: dict[str, Any] = {"stream": base64.b64encode(self.stream.state()).decode()}
        if self._detector is not None:
            parts["turns"] = self._detector.state()
        return base64.b64encode(json.dumps(parts).encode()).decode()


def _audio(samples: Tensor) -> list[Message]:
    """Speech (S,) at 16 kHz for the client: its size, and 16-bit samples; nothing if there are none."""
    if not len(samples):
        return []
    pcm = (samples.clamp(-1.0, 1.0) * 32767).round().to(torch.int16).cpu().numpy().astype("<i2")
    return [{"type": "audio", "samples": len(pcm), "sample_rate": SAMPLE_RATE}, pcm.tobytes()]


def _event(event: TurnEvent) -> dict[str, Any]:
    return {"type": event.kind, "seconds": round(event.seconds, 3), "found": round(event.found, 3)}


def states_of(state: bytes | None) -> tuple[bytes | None, dict[str, Any] | None]:
    """The states of the stream and of its turns. Raises ``ValueError`` if it is no state of a session."""
    if state is None:
        return None, None
    try:
        parts = json.loads(state)
        return base64.b64decode(parts["stream"], validate=True), parts.get("turns")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("state is not one that this server sent") from None
