"""One client on a WebSocket: what it sends goes to the sessions' steps, and what they find goes back."""

import asyncio
import json
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from spintok.serve import protocol
from spintok.serve.live_session import LiveSession
from spintok.serve.options import ServerOptions
from spintok.serve.protocol import ProtocolError
from spintok.serve.sessions import Sessions
from spintok.streaming.pool import PoolFullError

__all__ = ["serve_client"]

POLICY_VIOLATION, TRY_AGAIN_LATER, INTERNAL_ERROR = 1008, 1013, 1011
"""Close codes of WebSockets: RFC 6455, section 7.4.1, and the registry of the IANA."""


class _StopError(Exception):
    """The session ends with a reason for the client."""

    def __init__(self, code: int, reason: str, kind: str) -> None:
        super().__init__(reason)
        self.code, self.reason, self.kind = code, reason, kind


async def serve_client(socket: WebSocket, sessions: Sessions, options: ServerOptions) -> None:
    """Serve one session to its end. Whatever the client does, the session is closed and the others go on."""
    await socket.accept()
    session: LiveSession | None = None
    try:
        session = await _open(socket, sessions, options)
        await _send(socket, sessions.description(), options.idle_seconds)
        await _exchange(socket, session, options)
    except _StopError as stop:
        sessions.metrics.refused.labels(stop.kind).inc()
        await _close(socket, stop.code, stop.reason)
    except (WebSocketDisconnect, RuntimeError):
        # The client has gone, perhaps while a message was on its way to it.
        pass
    finally:
        if session is not None:
            sessions.drop(session)


async def _open(socket: WebSocket, sessions: Sessions, options: ServerOptions) -> LiveSession:
    """The session that the client's first message asks for."""
    message = await _receive(socket, options.idle_seconds)
    try:
        if not isinstance(message, str):
            raise ProtocolError('the first message must be {"type": "start", "sample_rate": ..., "format": "s16le"}')
        return await sessions.open(protocol.start(protocol.parse(message)))
    except PoolFullError as full:
        raise _StopError(TRY_AGAIN_LATER, f"{full}; try again later", "busy") from None
    except ValueError as error:
        raise _StopError(POLICY_VIOLATION, str(error), "protocol") from None


async def _exchange(socket: WebSocket, session: LiveSession, options: ServerOptions) -> None:
    """Read from and write to the client until one of the two is done."""
    reading = asyncio.create_task(_read(socket, session, options))
    writing = asyncio.create_task(_write(socket, session, options))
    try:
        done, _ = await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
        if reading in done and reading.exception() is None:
            # The client has sent its last sample; the rest of its tokens follow.
            await asyncio.wait({writing})
    finally:
        # Both may have failed, and the server may be shutting down.
        reading.cancel()
        writing.cancel()
        ends = await asyncio.gather(reading, writing, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end


async def _read(socket: WebSocket, session: LiveSession, options: ServerOptions) -> None:
    """Take the client's messages until it ends its stream."""
    while True:
        message = await _receive(socket, options.idle_seconds)
        try:
            if isinstance(message, bytes):
                # Returns once there is room in the backlog: TCP then slows the client down.
                await session.feed(protocol.pcm_samples(message, session.start.format))
                continue
            content = protocol.parse(message)
            match content["type"]:
                case "end":
                    session.end()
                    return
                case "state":
                    session.ask_state()
                case "turn":
                    session.label(protocol.label(content))
                case other:
                    raise ProtocolError(f"there is no message {other!r}; a session takes end, state, turn and PCM")
        except ValueError as error:
            raise _StopError(POLICY_VIOLATION, str(error), "protocol") from None


async def _write(socket: WebSocket, session: LiveSession, options: ServerOptions) -> None:
    """Send what the steps find, until the session's end."""
    while True:
        message = await session.receive()
        if message is None:
            await socket.close()
            return
        if isinstance(message, Exception):
            raise _StopError(INTERNAL_ERROR, f"the session failed: {message}", "failed")
        await _send(socket, message, options.idle_seconds)


async def _receive(socket: WebSocket, seconds: float) -> str | bytes:
    try:
        message = await asyncio.wait_for(socket.receive(), seconds)
    except TimeoutError:
        raise _StopError(POLICY_VIOLATION, f"nothing was received for {seconds:g} s", "idle") from None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1006))
    content = message.get("bytes")
    return content if content is not None else str(message["text"])


async def _send(socket: WebSocket, message: dict[str, Any] | bytes, seconds: float) -> None:
    """Send a message. A client that does not read stops the session instead of filling the server's memory."""
    sending = socket.send_bytes(message) if isinstance(message, bytes) else socket.send_text(json.dumps(message))
    try:
        await asyncio.wait_for(sending, seconds)
    except TimeoutError:
        raise _StopError(POLICY_VIOLATION, f"nothing was read for {seconds:g} s", "slow_reader") from None


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    """Tell the client why, in a message and in the close frame, which has room for 123 bytes."""
    try:
        async with asyncio.timeout(5):
            await socket.send_text(json.dumps({"type": "error", "reason": reason}))
            await socket.close(code, reason.encode()[:120].decode(errors="ignore"))
    except (TimeoutError, WebSocketDisconnect, RuntimeError):
        pass
