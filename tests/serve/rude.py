"""Clients that no server likes: each is a coroutine that misbehaves once and tells what became of it."""

import asyncio
import base64
import json
import os
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import numpy as np
import websockets

__all__ = ["RUDE", "Rude"]

Rude = Callable[[str, Random, np.ndarray], Awaitable[str]]
"""Takes the host and port, its own random numbers and 16-bit speech (S,) at 16 kHz; returns what became of it."""

_START = json.dumps({"type": "start", "sample_rate": 16000})
_HUGE = 100 << 20
# What a client of raw bytes reads before it stops.
_UNREAD = 1024


async def vanish(address: str, rng: Random, speech: np.ndarray) -> str:
    """Speak, and be gone in the middle of a word, without a goodbye."""
    socket = await _open(address)
    for start in range(0, rng.randrange(1_000, 64_000), 800):
        await socket.send(speech[start : start + 800].tobytes())
        await asyncio.sleep(0.05)
    socket.transport.abort()
    return "vanished"


async def stall(address: str, rng: Random, speech: np.ndarray) -> str:
    """Speak a little, then stay and say nothing."""
    socket = await _open(address)
    await socket.send(speech[: rng.randrange(16_000)].tobytes())
    return await _ended(socket)


async def garbage(address: str, rng: Random, _speech: np.ndarray) -> str:
    """Bytes that are no samples, or no frames of a WebSocket."""
    if rng.random() < 0.5:
        socket = await _open(address)
        await socket.send(rng.randbytes(2 * rng.randrange(500) + 1))
        return await _ended(socket)
    reader, writer = await _raw(address)
    writer.write(_frame(1, _START.encode()) + rng.randbytes(2_000))
    return await _hung_up(reader, writer)


async def text(address: str, rng: Random, speech: np.ndarray) -> str:
    """Text instead of samples."""
    socket = await _open(address)
    samples = base64.b64encode(speech[:1_600].tobytes()).decode()
    await socket.send(
        rng.choice([samples, json.dumps({"audio": samples}), json.dumps({"type": "audio"}), "[" * 50_000])
    )
    return await _ended(socket)


async def flood(address: str, rng: Random, speech: np.ndarray) -> str:
    """Half a minute of speech as fast as the server takes it."""
    socket = await _open(address)
    samples = np.roll(speech, rng.randrange(len(speech)))[: 30 * 16_000]
    ending = asyncio.create_task(_ended(socket))
    for start in range(0, len(samples), 16_000):
        await socket.send(samples[start : start + 16_000].tobytes())
    await socket.send(json.dumps({"type": "end"}))
    return await ending


async def deaf(address: str, _rng: Random, speech: np.ndarray) -> str:
    """Speak fast, ask for features, and never read."""
    reader, writer = await _raw(address)
    writer.write(_frame(1, json.dumps({"type": "start", "sample_rate": 16000, "features": 1}).encode()))
    for _ in range(20):
        for start in range(0, len(speech), 16_000):
            writer.write(_frame(2, speech[start : start + 16_000].tobytes()))
            try:
                await writer.drain()
            except ConnectionError:
                return "closed"
    return await _hung_up(reader, writer)


async def half_open(address: str, rng: Random, _speech: np.ndarray) -> str:
    """Connect, and send no handshake, or half of one."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(rng.choice([b"", b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"\x16\x03\x01\x02\x00"]))
    return await _hung_up(reader, writer)


async def wrong_rate(address: str, rng: Random, _speech: np.ndarray) -> str:
    """A sample rate that nobody has."""
    socket = await _connect(address)
    rate: Any = rng.choice([0, 1, -16_000, 10**9, 16_000.5, "16000", None])
    await socket.send(json.dumps({"type": "start", "sample_rate": rate}))
    return await _ended(socket)


async def huge(address: str, rng: Random, _speech: np.ndarray) -> str:
    """A message of 100 MB, whole or in fragments that never end."""
    reader, writer = await _raw(address)
    writer.write(_frame(1, _START.encode()))
    fragments = rng.random() < 0.5
    if not fragments:
        writer.write(_head(2, _HUGE))
    first = True
    try:
        for _ in range(0, _HUGE, 1 << 18):
            part = bytes(1 << 18)
            writer.write(_frame(2 if first else 0, part, last=False) if fragments else part)
            await writer.drain()
            first = False
    except ConnectionError:
        return "closed"
    return await _hung_up(reader, writer)


async def crowd(address: str, rng: Random, speech: np.ndarray) -> str:
    """Many sessions at once, to fill the server."""
    sockets = [await _open(address) for _ in range(8)]
    try:
        for start in range(0, 8_000, 1_600):
            for socket in sockets:
                try:
                    await socket.send(speech[start : start + 1_600].tobytes())
                except websockets.ConnectionClosed:
                    continue
            await asyncio.sleep(0.1)
        await asyncio.sleep(rng.random())
        full = sum(socket.close_code == 1013 for socket in sockets)
        return f"{full} of 8 refused"
    finally:
        for socket in sockets:
            await socket.close()


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


async def _connect(address: str) -> Any:
    return await websockets.connect(f"ws://{address}/stream", compression=None, max_size=None, open_timeout=60)


async def _open(address: str) -> Any:
    socket = await _connect(address)
    await socket.send(_START)
    return socket


async def _ended(socket: Any) -> str:
    """The code with which the server closes."""
    try:
        while True:
            await socket.recv()
    except websockets.ConnectionClosed:
        return f"closed with {socket.close_code}"


async def _raw(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket whose frames are ours to spoil; nothing is read unless it is asked for."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=_UNREAD)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /stream HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def _head(opcode: int, size: int, *, last: bool = True) -> bytes:
    """The head of a frame, with a mask of zeros. Source: RFC 6455, section 5.2."""
    first = bytes([(128 if last else 0) | opcode])
    if size < 126:
        return first + bytes([128 | size]) + bytes(4)
    if size < 1 << 16:
        return first + bytes([128 | 126]) + size.to_bytes(2, "big") + bytes(4)
    return first + bytes([128 | 127]) + size.to_bytes(8, "big") + bytes(4)


def _frame(opcode: int, payload: bytes, *, last: bool = True) -> bytes:
    return _head(opcode, len(payload), last=last) + payload


async def _hung_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """Wait until the server hangs up."""
    try:
        while await reader.read(65_536):
            pass
    except ConnectionError:
        pass
    finally:
        writer.close()
    return "closed"
