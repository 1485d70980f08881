"""Clients that no server likes: each is a coroutine that misbehaves once and tells what became of it."""

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any

import numpy as np
import websockets

__all__ = ["RUDE", "Rude", "frame", "raw_socket"]

Rude = Callable[[str, Random, np.ndarray], Awaitable[str]]
"""Takes the host and port, its own random numbers and 16-bit speech (S,) at 16 kHz; returns what became of it."""

_START = json.dumps({"type": "start", "sample_rate": 16000})
_HUGE = 100 << 20
# What a client of raw bytes reads before it stops.
_UNREAD = 1024


async def vanish(address: str, rng: Random, speech: np.ndarray) -> str:
    """Speak, and be gone in the middle of a word, without a goodbye."""
    async with _open(address) as socket:
        for start in range(0, rng.randrange(1_000, 64_000), 800):
            await socket.send(speech[start : start + 800].tobytes())
            await asyncio.sleep(0.05)
    return "vanished"


async def stall(address: str, rng: Random, speech: np.ndarray) -> str:
    """Speak a little, then stay and say nothing."""
    async with _open(address) as socket:
        await socket.send(speech[: rng.randrange(16_000)].tobytes())
        return await _ended(socket)


async def garbage(address: str, rng: Random, _speech: np.ndarray) -> str:
    """Bytes that are no samples, or no frames of a WebSocket."""
    if rng.random() < 0.5:
        async with _open(address) as socket:
            await socket.send(rng.randbytes(2 * rng.randrange(500) + 1))
            return await _ended(socket)
    async with raw_socket(address) as (reader, writer):
        writer.write(frame(1, _START.encode()) + rng.randbytes(2_000))
        return await _hung_up(reader)


async def text(address: str, rng: Random, speech: np.ndarray) -> str:
    """Text instead of samples."""
    samples = base64.b64encode(speech[:1_600].tobytes()).decode()
    async with _open(address) as socket:
        await socket.send(
            rng.choice([samples, json.dumps({"audio": samples}), json.dumps({"type": "audio"}), "[" * 50_000])
        )
        return await _ended(socket)


async def flood(address: str, rng: Random, speech: np.ndarray) -> str:
    """Half a minute of speech as fast as the server takes it."""
    samples = np.roll(speech, rng.randrange(len(speech)))[: 30 * 16_000]
    async with _open(address) as socket:
        ending = asyncio.create_task(_ended(socket))
        for start in range(0, len(samples), 16_000):
            await socket.send(samples[start : start + 16_000].tobytes())
        await socket.send(json.dumps({"type": "end"}))
        return await ending


async def deaf(address: str, _rng: Random, speech: np.ndarray) -> str:
    """Speak fast, ask for features, and never read."""
    async with raw_socket(address) as (reader, writer):
        writer.write(frame(1, json.dumps({"type": "start", "sample_rate": 16000, "features": 1}).encode()))
        for start in range(0, len(speech), 16_000):
            writer.write(frame(2, speech[start : start + 16_000].tobytes()))
            await writer.drain()
        return await _hung_up(reader)


async def half_open(address: str, rng: Random, _speech: np.ndarray) -> str:
    """Connect, and send no handshake, or half of one."""
    async with connection(address) as (reader, writer):
        writer.write(rng.choice([b"", b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"\x16\x03\x01\x02\x00"]))
        return await _hung_up(reader)


async def wrong_rate(address: str, rng: Random, _speech: np.ndarray) -> str:
    """A sample rate that nobody has."""
    rate: Any = rng.choice([0, 1, -16_000, 10**9, 16_000.5, "16000", None])
    async with _connect(address) as socket:
        await socket.send(json.dumps({"type": "start", "sample_rate": rate}))
        return await _ended(socket)


async def huge(address: str, rng: Random, _speech: np.ndarray) -> str:
    """A message of 100 MB, whole or in fragments."""
    fragments = rng.random() < 0.5
    part = bytes(1 << 18)
    async with raw_socket(address) as (reader, writer):
        writer.write(frame(1, _START.encode()))
        if not fragments:
            writer.write(_head(2, _HUGE))
        for sent in range(0, _HUGE, len(part)):
            writer.write(frame(0 if sent else 2, part, last=False) if fragments else part)
            await writer.drain()
        return await _hung_up(reader)


async def crowd(address: str, rng: Random, speech: np.ndarray) -> str:
    """Many sessions at once, to fill the server."""
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(_open(address)) for _ in range(8)]
        for start in range(0, 8_000, 1_600):
            for socket in sockets:
                with contextlib.suppress(websockets.ConnectionClosed):
                    await socket.send(speech[start : start + 1_600].tobytes())
            await asyncio.sleep(0.1)
        await asyncio.sleep(rng.random())
        return f"{sum(socket.close_code == 1013 for socket in sockets)} of 8 refused"


RUDE: dict[str, Rude] = {
    "vanish": vanish,
    "stall": stall,
    "garbage": garbage,
    "text": text,
    "flood": flood,
    "deaf": deaf,
    "half-open": half_open,
    "wrong rate": wrong_rate,
    "100 MB": huge,
    "crowd": crowd,
}
"""All of them by name."""


@asynccontextmanager
async def _connect(address: str) -> AsyncIterator[Any]:
    """A WebSocket that is gone without a goodbye at the end."""
    url = f"ws://{address}/stream"
    socket = await websockets.connect(url, compression=None, max_size=None, open_timeout=60)
    try:
        yield socket
    finally:
        socket.transport.abort()


@asynccontextmanager
async def _open(address: str) -> AsyncIterator[Any]:
    async with _connect(address) as socket:
        await socket.send(_START)
        yield socket


async def _ended(socket: Any) -> str:
    """The code with which the server closes."""
    try:
        while True:
            await socket.recv()
    except websockets.ConnectionClosed:
        return f"closed with {socket.close_code}"


@asynccontextmanager
async def connection(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Bytes to and from the server; hardly anything is read unless it is asked for."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=_UNREAD)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@asynccontextmanager
async def raw_socket(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A WebSocket whose frames are ours to spoil."""
    async with connection(address) as (reader, writer):
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET /stream HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        yield reader, writer


def _head(opcode: int, size: int, *, last: bool = True) -> bytes:
    """The head of a frame, with a mask of zeros. Source: RFC 6455, section 5.2."""
    first = bytes([(128 if last else 0) | opcode])
    if size < 126:
        return first + bytes([128 | size]) + bytes(4)
    if size < 1 << 16:
        return first + bytes([128 | 126]) + size.to_bytes(2, "big") + bytes(4)
    return first + bytes([128 | 127]) + size.to_bytes(8, "big") + bytes(4)


def frame(opcode: int, payload: bytes, *, last: bool = True) -> bytes:
    """A frame of a WebSocket, as a client sends it."""
    return _head(opcode, len(payload), last=last) + payload


async def _hung_up(reader: asyncio.StreamReader) -> str:
    """Wait until the server hangs up."""
    while await reader.read(65_536):
        pass
    return "closed"
