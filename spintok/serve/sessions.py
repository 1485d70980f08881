"""All live sessions of a server, tokenized together: one step after another, each with a chunk of whoever has one."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spintok.serve.live_session import LiveSession, Message, states_of
from spintok.serve.metrics import Metrics
from spintok.serve.options import ServerOptions
from spintok.serve.protocol import Start
from spintok.streaming.turns import TurnDetector

if TYPE_CHECKING:
    from spintok.decoder.decoder import Decoder
    from spintok.decoder.stream import DecoderStream
    from spintok.streaming.tokens import StreamTokens
    from spintok.tokenizer import Tokenizer

__all__ = ["FEW", "LEEWAY", "Sessions", "next_step"]

LEEWAY = 2.0
"""Seconds by which audio of a client that keeps to real time may be ahead, for clocks begin when it is let in."""
FEW = 4
"""How many sessions that are ahead of real time share a step, which whoever speaks meanwhile has to wait for."""


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
        # Computed once, for it reads all weights: longer than a step.
        self.fingerprint = tokenizer.at(options.latency).fingerprint
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
        stream_state, turn_state = states_of(start.state)
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
        backlog = self.options.backlog_seconds * start.sample_rate
        session = LiveSession(start, stream, self._work.set, backlog, detector, speaker)
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
            "fingerprint": self.fingerprint,
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

    async def run(self) -> None:
        """Step the sessions whenever one of them has something to do."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                # A chunk of each, so that nobody waits for the backlog of another.
                work = [(s, s.take(self._chunk(s))) for s in next_step(self._open, time.monotonic())]
                if not work:
                    continue
                began = time.perf_counter()
                try:
                    found = await loop.run_in_executor(self._thread, self._step, work)
                except Exception as error:
                    # The pool failed, and nobody knows for whom; the server goes on for those who come.
                    found = [_failed(session, error) for session, _ in work]
                self.metrics.step.observe(time.perf_counter() - began)
                for (session, _), messages in zip(work, found, strict=True):
                    for message in messages:
                        session.outbox.put_nowait(message)
                if any(session.has_work() for session in self._open):
                    self._work.set()
        finally:
            self._thread.shutdown(wait=True, cancel_futures=True)
            self.pool.shutdown()

    def _chunk(self, session: LiveSession) -> int:
        return max(1, round(self.options.latency * session.start.sample_rate))

    def _step(self, work: Sequence[tuple[LiveSession, list[NDArray[np.float32]]]]) -> list[list[Message]]:
        """One step of each session. One that fails ends, with its error for its client, and the others go on."""
        found = [_guarded(session, partial(session.advance, parts)) for session, parts in work]
        together = [session.stream for session, _ in work if not session.over]
        layers = sorted({session.start.features for session, _ in work if session.start.features is not None})
        steps = self.pool.step_features(together, layers)
        for (session, parts), messages in zip(work, found, strict=True):
            self.metrics.seconds.inc(sum(map(len, parts)) / session.start.sample_rate)
            if not session.over:
                tokens, features = steps.get(session.stream, (None, []))
                layer = session.start.features
                own = features[layers.index(layer)] if features and layer is not None else None
                messages += _guarded(session, partial(self._answers, session, tokens, own))
        return found

    def _answers(self, session: LiveSession, tokens: "StreamTokens | None", features: Tensor | None) -> list[Message]:
        """What a session has for its client after a step, in which it got these tokens."""
        found: list[Message] = []
        if tokens is not None:
            self.metrics.frames.inc(tokens.num_frames)
            found += session.tokens(tokens, features)
        return found + session.answers()


def next_step(sessions: Sequence[LiveSession], now: float) -> list[LiveSession]:
    """The sessions of the next step: all that keep to real time, or else a few of those that send faster."""
    due = [session for session in sessions if session.has_work()]
    live = [session for session in due if session.ahead(now) <= LEEWAY]
    return live or sorted(due, key=lambda session: session.ahead(now))[:FEW]


def _guarded(session: LiveSession, part: Callable[[], list[Message]]) -> list[Message]:
    """What a part of a session's step has for its client; an error ends the session."""
    try:
        return part()
    except Exception as error:
        return _failed(session, error)


def _failed(session: LiveSession, error: Exception) -> list[Message]:
    session.over = True
    return [error]
