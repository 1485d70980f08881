"""A server in a thread, and clients of it."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import uvicorn
import websockets

from spintok.decoder import Decoder
from spintok.serve import ServerOptions, create_app
from spintok.serve.transport import server_config
from spintok.tokenizer import Tokenizer

__all__ = ["RATE", "Client", "pcm", "run", "running"]

RATE = 16000


@contextmanager
def running(
    tokenizer: Tokenizer, decoder: Decoder | None = None, send_buffer: int = 0, **options: Any
) -> Iterator[str]:
    """The host and port of a running server; ``send_buffer`` limits what the system takes of its messages, in bytes."""
    settings = ServerOptions(**({"latency": 0.08} | options))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        if send_buffer:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        config = server_config(create_app(tokenizer, settings, decoder), settings)
        config.timeout_graceful_shutdown = 2
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def pcm(samples: np.ndarray) -> np.ndarray:
    """Floats as 16-bit samples, as a client sends them."""
    return np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2")


_connections: list[Any] = []


def run(talk: Coroutine[Any, Any, Any]) -> Any:
    """What a conversation returns; afterwards all its connections are closed."""

    async def whole() -> Any:
        try:
            return await talk
        finally:
            while _connections:
                await _connections.pop().close()

    return asyncio.run(whole())


class Client:
    """A session of a server.

    Attributes:
        codes: the codes of all messages so far.
        messages: all JSON messages so far.
        features: the rows of features so far.
        audio: 16-bit samples of the voice so far.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        _connections.append(connection)
        self.codes: list[int] = []
        self.messages: list[dict[str, Any]] = []
        self.features: list[np.ndarray] = []
        self.audio: list[np.ndarray] = []

    @classmethod
    async def open(cls, address: str, *, sample_rate: int = RATE, **start: Any) -> "Client":
        client = cls(await websockets.connect(f"ws://{address}/stream", max_size=None))
        await client.send({"type": "start", "sample_rate": sample_rate, **start})
        return client

    async def send(self, message: dict[str, Any] | bytes | str) -> None:
        await self.connection.send(json.dumps(message) if isinstance(message, dict) else message)

    async def speak(self, samples: np.ndarray, step: int) -> None:
        """Send 16-bit samples in messages of ``step`` samples."""
        for start in range(0, len(samples), step):
            await self.send(samples[start : start + step].tobytes())

    async def until(self, kind: str, seconds: float = 60) -> dict[str, Any]:
        """Read messages up to the first one of this kind."""
        async with asyncio.timeout(seconds):
            while True:
                message = await self.connection.recv()
                if isinstance(message, bytes) and self.messages[-1]["type"] == "audio":
                    self.audio.append(np.frombuffer(message, "<i2"))
                    continue
                if isinstance(message, bytes):
                    rows, width = self.messages[-1]["features"]["shape"]
                    self.features.append(np.frombuffer(message, "<f4").reshape(rows, width))
                    continue
                answer = json.loads(message)
                self.messages.append(answer)
                self.codes += answer.get("codes", [])
                if answer["type"] == kind:
                    return answer
                assert answer["type"] != "error", answer

    async def refused(self) -> tuple[str, int]:
        """The reason and the close code with which the server ends the session."""
        with pytest.raises((AssertionError, websockets.ConnectionClosed)):
            await self.until("never")
        await self.connection.wait_closed()
        reasons = [m["reason"] for m in self.messages if m["type"] == "error"]
        return (reasons or [self.connection.close_reason])[0], self.connection.close_code
