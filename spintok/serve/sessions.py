"""All live sessions of a server, tokenized together: one step after another, each with a chunk of whoever has one."""

import asyncio
import base64
import json
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spintok.frames import SAMPLE_RATE
from spintok.serve.metrics import Metrics
from spintok.serve.options import ServerOptions
from spintok.serve.protocol import Start, tokens_message
from spintok.streaming.turns import TurnDetector, TurnEvent

if TYPE_CHECKING:
    from spintok.decoder.decoder import Decoder
    from spintok.decoder.stream import DecoderStream
    from spintok.streaming.stream import Stream
    from spintok.streaming.tokens import StreamTokens
    from spintok.tokenizer import Tokenizer

__all__ = ["LiveSession", "Message", "Sessions"]

Message = dict[str, Any] | bytes | Exception | None
"""What a session has for its client: JSON, binary data that belong to the JSON before, a failure, or its end."""

OUTBOX = 64
"""Messages that may wait for a client that reads slowly; until it reads, its samples wait too."""

_STATE = object()


class LiveSession:
    """One client's stream.

    Attributes:
        start: what the client asked for.
        outbox: messages for the client.
    """

    def __init__(
        self,
        owner: "Sessions",
        start: Start,
        stream: "Stream",
        detector: TurnDetector | None,
        speaker: "DecoderStream | None",
    ) -> None:
        self.start = start
        self.stream = stream
        self.detector = detector
        self.speaker = speaker
        self.outbox: asyncio.Queue[Message] = asyncio.Queue()
        self.over = False
        self._owner = owner
        self._inbox: deque[NDArray[np.float32] | object] = deque()
        self._samples = 0
        self._ended = False
        self._labels: list[str] = []
        self._room = asyncio.Event()

    async def feed(self, samples: NDArray[np.float32]) -> None:
        """Take samples, once there is room in the backlog."""
        while self._samples > self._owner.options.backlog_seconds * self.start.sample_rate and not self.over:
            self._room.clear()
            await self._room.wait()
        if len(samples):
            self._inbox.append(samples)
            self._samples += len(samples)
            self._owner.metrics.seconds.inc(len(samples) / self.start.sample_rate)
            self._owner.wake()

    def end(self) -> None:
        """Say that no more samples will come."""
        self._ended = True
        self._owner.wake()

    def ask_state(self) -> None:
        """Send the state after all samples so far."""
        self._inbox.append(_STATE)
        self._owner.wake()

    def label(self, label: str) -> None:
        """Take a label of the turn that is open, or was the last one."""
        self._labels.append(label)
        self._owner.wake()

    def sent(self) -> None:
        """Say that a message has left the outbox."""
        self._owner.wake()

    def abandon(self) -> None:
        """Forget the session; its client has gone."""
        self._owner.drop(self)

    def has_work(self) -> bool:
        """Whether a step would change anything."""
        if self.over or self.outbox.qsize() >= OUTBOX:
            return False
        return bool(self._inbox or self._labels or self._ended or self.stream.session.due)

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
        self._room.set()
        return taken

    def advance(self, parts: Sequence[NDArray[np.float32]]) -> list[Message]:
        """Feed samples to the stream and the detector, in the thread of the steps. Returns events of turns."""
        events: list[TurnEvent] = []
        for samples in parts:
            resampled = self.stream.feed(samples, self.start.sample_rate)
            if self.detector is not None:
                events += self.detector.push(resampled)
        found: list[Message] = [_event(event) for event in events]
        for label in self._labels:
            found.append({"type": "turn", "label": label})
            if label != "listen" and self.detector is not None:
                found += [_event(event) for event in self.detector.close()]
        self._labels.clear()
        if self._ended and not self._inbox:
            last = self.stream.finish()
            if self.detector is not None:
                found += [_event(event) for event in [*self.detector.push(last), *self.detector.close()]]
        return found

    def answers(self) -> list[Message]:
        """What follows the tokens of a step: the state if it was asked for, and the end."""
        found: list[Message] = []
        if self.stream.session.due:
            return found
        while self._inbox and self._inbox[0] is _STATE:
            self._inbox.popleft()
            found.append({"type": "state", "state": self._state(), "frames": self.stream.num_frames})
        if self._ended and not self._inbox:
            self.over = True
            if self.speaker is not None:
                found += audio_message(self.speaker.close())
            frames = self.stream.num_frames
            found += [{"type": "end", "frames": frames, "seconds": frames / self._owner.frame_rate}, None]
        return found

    def _state(self) -> str:
        parts: dict[str, Any] = {"stream": base64.b64encode(self.stream.state()).decode()}
        if self.detector is not None:
            parts["turns"] = self.detector.state()
        return base64.b64encode(json.dumps(parts).encode()).decode()


class Sessions:
    """The sessions of a server. ``run`` steps them until it is cancelled.

    Args:
        tokenizer: what turns their audio into tokens.
        options: latency, codebook and limits.
        metrics: what is counted.
        decoder: speaks the tokens of sessions that ask for a voice; None if there is no voice.

    Raises:
        ValueError: the latency or the codebook does not exist.
    """

    def __init__(
        self, tokenizer: "Tokenizer", options: ServerOptions, metrics: Metrics, decoder: "Decoder | None" = None
    ) -> None:
        self.tokenizer = tokenizer
        self.decoder = decoder
        self.options = options
        self.metrics = metrics
        self.frame_rate = tokenizer.frame_rate
        self.pool = tokenizer.stream_pool(options.sessions, options.latency, codebook=options.codebook)
        self._open: list[LiveSession] = []
        self._thread = ThreadPoolExecutor(1, "spintok-serve")
        self._work = asyncio.Event()

    async def open(self, start: Start) -> LiveSession:
        """A new session, or one that goes on from a state.

        Raises:
            PoolFullError: there are as many as the server takes.
            ValueError: the state or the layer cannot be used, or turns cannot be told.
        """
        stream_state, turn_state = _split(start.state)
        if start.features is not None:
            self.tokenizer.check_layers([start.features])
            if start.features > self.tokenizer.layer:
                raise ValueError(f"streams compute layers up to {self.tokenizer.layer}, that of the codes")
        speaker = self._speaker(start.voice)
        detector = None
        if start.turns:
            try:
                detector = TurnDetector()
            except ImportError as error:
                raise ValueError(str(error)) from None
            if turn_state is not None:
                detector.restore(turn_state)
        loop = asyncio.get_running_loop()
        # The pool is for one thread.
        stream = await loop.run_in_executor(self._thread, self.pool.open, stream_state)
        session = LiveSession(self, start, stream, detector, speaker)
        self._open.append(session)
        self.metrics.opened.inc()
        self.metrics.sessions.set(len(self._open))
        return session

    def description(self) -> dict[str, Any]:
        """The answer to ``start``: what the tokens are."""
        codebook = self.tokenizer.codebook(self.options.codebook).config
        return {
            "type": "ready",
            "tokenizer": self.tokenizer.name,
            "fingerprint": self.tokenizer.fingerprint,
            "codebook": codebook.name,
            "codebook_size": codebook.size,
            "latency": self.options.latency,
            "frame_rate": self.frame_rate,
            "voices": self.voices,
        }

    @property
    def voices(self) -> list[str]:
        """The voices in which tokens can be played back."""
        return [] if self.decoder is None else list(self.decoder.voices)

    def _speaker(self, voice: str | None) -> "DecoderStream | None":
        """Raises ``ValueError`` if there is no such voice."""
        if voice is None:
            return None
        if self.decoder is None or voice not in self.voices:
            known = f"its voices are {', '.join(self.voices)}" if self.voices else "it has no decoder of these tokens"
            raise ValueError(f"this server has no voice {voice!r}: {known}")
        return self.decoder.stream(voice)

    def drop(self, session: LiveSession) -> None:
        """Forget a session."""
        if session in self._open:
            session.over = True
            self._open.remove(session)
            self.metrics.sessions.set(len(self._open))
            self._thread.submit(self.pool.remove, session.stream)

    def wake(self) -> None:
        """Say that a session has something to do."""
        self._work.set()

    async def run(self) -> None:
        """Step the sessions whenever one of them has something to do."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                # A chunk of each, so that nobody waits for the backlog of another.
                work = [(s, s.take(self._chunk(s))) for s in self._open if s.has_work()]
                if not work:
                    continue
                began = time.perf_counter()
                try:
                    found = await loop.run_in_executor(self._thread, self._step, work)
                except Exception as error:
                    # Nobody knows whose step failed; the server goes on for those who come.
                    found = [self._failed(session, error) for session, _ in work]
                self.metrics.step.observe(time.perf_counter() - began)
                for (session, _), messages in zip(work, found, strict=True):
                    for message in messages:
                        session.outbox.put_nowait(message)
                if any(session.has_work() for session in self._open):
                    self._work.set()
        finally:
            self._thread.shutdown(wait=True, cancel_futures=True)
            self.pool.shutdown()

    def _failed(self, session: LiveSession, error: Exception) -> list[Message]:
        session.over = True
        return [error]

    def _chunk(self, session: LiveSession) -> int:
        return max(1, round(self.options.latency * session.start.sample_rate))

    def _step(self, work: Sequence[tuple[LiveSession, list[NDArray[np.float32]]]]) -> list[list[Message]]:
        """One step of each session. One that fails ends, with its error for its client, and the others go on."""
        found: list[list[Message]] = []
        for session, parts in work:
            try:
                found.append(session.advance(parts))
            except Exception as error:
                found.append(self._failed(session, error))
        waiting = [session for session, _ in work if not session.over]
        tokens = self.pool.step([session.stream for session in waiting if session.start.features is None])
        for (session, _), messages in zip(work, found, strict=True):
            if session.over:
                continue
            if session.start.features is not None and session.stream.session.due:
                messages += self._with_features(session, session.start.features)
            elif session.stream in tokens:
                messages += self._tokens(session, tokens[session.stream])
            messages += session.answers()
        return found

    def _with_features(self, session: LiveSession, layer: int) -> list[Message]:
        """The tokens of a session's next step, and their features."""
        results = self.pool.engine.step([session.stream.session], [layer])
        message, *audio = self._tokens(session, session.stream.take(results))
        features = torch.cat([result.features[0] for result in results]).float().cpu().numpy()
        assert isinstance(message, dict)
        message["features"] = {"layer": layer, "shape": list(features.shape)}
        return [message, features.astype("<f4").tobytes(), *audio]

    def _tokens(self, session: LiveSession, tokens: "StreamTokens") -> list[Message]:
        """The message of tokens, and what they say in the session's voice."""
        self.metrics.frames.inc(tokens.num_frames)
        found: list[Message] = [tokens_message(tokens, tokens.start, continues=tokens.continues)]
        if session.speaker is not None:
            found += audio_message(session.speaker.push(tokens.codes))
        return found


def audio_message(samples: Tensor) -> list[Message]:
    """Speech (S,) at 16 kHz for the client: its size, and 16-bit samples; nothing if there are none."""
    if not len(samples):
        return []
    pcm = (samples.clamp(-1.0, 1.0) * 32767).round().to(torch.int16).cpu().numpy().astype("<i2")
    return [{"type": "audio", "samples": len(pcm), "sample_rate": SAMPLE_RATE}, pcm.tobytes()]


def _event(event: TurnEvent) -> dict[str, Any]:
    return {"type": event.kind, "seconds": round(event.seconds, 3), "found": round(event.found, 3)}


def _split(state: bytes | None) -> tuple[bytes | None, dict[str, Any] | None]:
    """The states of the stream and of its turns. Raises ``ValueError`` if it is no state of a session."""
    if state is None:
        return None, None
    try:
        parts = json.loads(state)
        return base64.b64decode(parts["stream"], validate=True), parts.get("turns")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("state is not one that this server sent") from None
