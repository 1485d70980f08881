"""A server under wrong use: it answers with a reason or closes, and goes on for the others."""

import asyncio
import json
import socket

import httpx
import pytest
import websockets

from tests.serve.rude import frame, raw_socket
from tests.serve.servers import RATE, Client, pcm, run, running
from tests.streaming.streamers import speech, tokenizer

TOKENIZER = tokenizer("streaming")


def _works(address: str) -> bool:
    samples = pcm(speech(RATE))

    async def talk() -> list[int]:
        client = await Client.open(address)
        await client.speak(samples, 1600)
        await client.send({"type": "end"})
        await client.until("end")
        return client.codes

    return run(talk()) == TOKENIZER.encode(samples, RATE, latency=0.08).codes.tolist()


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("[", "JSON"),
        ("[1]", "JSON"),
        ("[" * 100_000, "JSON"),
        ('{"type": "begin"}', "first message"),
        (b"\0\0", "first message"),
        ('{"type": "start"}', "sample_rate"),
        ('{"type": "start", "sample_rate": 1}', "sample_rate"),
        ('{"type": "start", "sample_rate": 1e999}', "sample_rate"),
        ('{"type": "start", "sample_rate": 16000, "format": "mp3"}', "format"),
        ('{"type": "start", "sample_rate": 16000, "color": 1}', "color"),
        ('{"type": "start", "sample_rate": 16000, "features": 99}', "layer"),
        ('{"type": "start", "sample_rate": 16000, "features": "1"}', "layer"),
        ('{"type": "start", "sample_rate": 16000, "turns": 1}', "turns"),
        ('{"type": "start", "sample_rate": 16000, "state": "AAAA"}', "state"),
        ('{"type": "start", "sample_rate": 16000, "state": 5}', "state"),
    ],
)
def test_a_wrong_start_is_refused_with_a_reason(address, message, reason) -> None:
    async def talk() -> tuple[str, int]:
        client = Client(await websockets.connect(f"ws://{address}/stream"))
        await client.send(message)
        return await client.refused()

    found, code = run(talk())
    assert reason in found
    assert code == 1008


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\0", "whole samples"),
        ("garbage", "JSON"),
        ('{"type": "dance"}', "dance"),
        ('{"type": "turn", "label": "shout"}', "label"),
    ],
)
def test_a_wrong_message_ends_its_session_only(address, message, reason) -> None:
    async def talk() -> tuple[str, int]:
        client = await Client.open(address)
        await client.until("ready")
        await client.send(message)
        return await client.refused()

    found, code = run(talk())
    assert reason in found
    assert code == 1008
    assert _works(address)


def test_floats_that_are_no_audio_are_refused(address) -> None:
    async def talk() -> tuple[str, int]:
        client = await Client.open(address, format="f32le")
        await client.send(b"\xff\xff\xff\xff" * 100)
        return await client.refused()

    assert "finite" in run(talk())[0]


def test_limits_hold() -> None:
    async def talk(address: str) -> None:
        first = await Client.open(address)
        await first.until("ready")
        second = await Client.open(address)
        reason, code = await second.refused()
        assert "full" in reason
        assert code == 1013
        await first.send(b"\0" * 20_000)
        assert (await first.refused())[1] == 1009
        # Its place is free again as soon as the server has seen it go.
        for _ in range(100):
            third = await Client.open(address)
            message = json.loads(await third.connection.recv())
            if message["type"] == "ready":
                break
            await asyncio.sleep(0.05)
        assert message["type"] == "ready"
        reason, code = await third.refused()
        assert "nothing was received for 1 s" in reason
        assert code == 1008

    with running(TOKENIZER, sessions=1, message_bytes=10_000, idle_seconds=1) as address:
        run(talk(address))


def test_a_backlog_slows_its_client_and_loses_nothing() -> None:
    samples = pcm(speech(20 * RATE))

    async def talk(address: str) -> list[int]:
        client = await Client.open(address)
        reading = asyncio.create_task(client.until("end"))
        await client.speak(samples, 4000)
        await client.send({"type": "end"})
        await reading
        return client.codes

    with running(TOKENIZER, backlog_seconds=0.5) as address:
        assert run(talk(address)) == TOKENIZER.encode(samples, RATE, latency=0.08).codes.tolist()


def test_half_a_handshake_and_other_protocols_do_no_harm(address) -> None:
    host, port = address.split(":")
    for content in (b"GET /stream HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00", b"\0" * 1000):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(content)
    assert _works(address)


def test_who_leaves_before_the_answer_to_start_leaves_no_session() -> None:
    async def talk(address: str) -> None:
        for _ in range(10):
            async with raw_socket(address) as (_, writer):
                writer.write(frame(1, json.dumps({"type": "start", "sample_rate": RATE}).encode()))
        for _ in range(200):
            metrics = (await asyncio.to_thread(httpx.get, f"http://{address}/metrics")).text
            if "spintok_sessions 0.0" in metrics:
                break
            await asyncio.sleep(0.05)
        assert "spintok_sessions 0.0" in metrics
        # At least one of them had been opened.
        assert "spintok_sessions_opened_total 0.0" not in metrics

    with running(TOKENIZER, sessions=1) as address:
        run(talk(address))
        assert _works(address)


def test_a_client_that_does_not_read_is_cut_off() -> None:
    samples = pcm(speech(60 * RATE))

    async def talk(address: str) -> str:
        async with raw_socket(address) as (_, writer):
            start = {"type": "start", "sample_rate": RATE, "features": 2}
            writer.write(frame(1, json.dumps(start).encode()))
            for first in range(0, len(samples), RATE):
                writer.write(frame(2, samples[first : first + RATE].tobytes()))
            for _ in range(400):
                await asyncio.sleep(0.05)
                metrics = (await asyncio.to_thread(httpx.get, f"http://{address}/metrics")).text
                if 'reason="slow_reader"} 1.0' in metrics:
                    return metrics
        return metrics

    with running(TOKENIZER, send_buffer=4096, idle_seconds=1) as address:
        assert 'spintok_refused_total{reason="slow_reader"} 1.0' in run(talk(address))
        assert _works(address)


def test_connections_without_a_request_are_closed() -> None:
    with running(TOKENIZER, idle_seconds=0.5) as address:
        host, port = address.split(":")
        for content in (b"", b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\n"):
            with socket.create_connection((host, int(port)), timeout=30) as connection:
                connection.sendall(content)
                assert connection.recv(1) == b""
        # A session that speaks goes on.
        samples = pcm(speech(RATE))

        async def talk() -> int:
            client = await Client.open(address)
            for start in range(0, RATE, 1600):
                await client.send(samples[start : start + 1600].tobytes())
                await asyncio.sleep(0.1)
            await client.send({"type": "end"})
            return (await client.until("end"))["frames"]

        assert run(talk()) == 49


def test_only_those_with_the_token_come_in() -> None:
    async def talk(address: str, query: str, headers: dict[str, str]) -> str:
        connection = await websockets.connect(f"ws://{address}/stream{query}", additional_headers=headers)
        client = Client(connection)
        await client.send({"type": "start", "sample_rate": RATE})
        return (await client.until("ready"))["type"]

    with running(TOKENIZER, token="hush") as address:
        for query, headers in (("", {}), ("?token=hus", {}), ("", {"Authorization": "Bearer x"})):
            with pytest.raises(websockets.InvalidStatus) as refused:
                run(talk(address, query, headers))
            assert refused.value.response.status_code == 403
            assert b"token" in refused.value.response.body
        assert run(talk(address, "?token=hush", {})) == "ready"
        assert run(talk(address, "", {"Authorization": "Bearer hush"})) == "ready"
        assert httpx.get(f"http://{address}/metrics").status_code == 403
        assert httpx.post(f"http://{address}/tokens", content=b"x").status_code == 403
        assert httpx.get(f"http://{address}/health").status_code == 200
        assert httpx.get(f"http://{address}/").status_code == 200


@pytest.fixture(scope="module")
def friendly():
    with running(TOKENIZER, origins=("https://friend.example",)) as found:
        yield found


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 403),
        # A page whose name was made to resolve to this machine.
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),
        ({"Origin": "https://friend.example"}, 200),
        ({"Host": "localhost:1"}, 200),
        ({}, 200),
    ],
)
def test_pages_of_other_origins_are_kept_out(friendly, headers, status) -> None:
    assert httpx.get(f"http://{friendly}/metrics", headers=headers).status_code == status
