"""How a server and its sessions end: nothing is left running, and nothing is printed that helps nobody."""

import asyncio
import gc
import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from forks import ended, start

from spintok.serve import ServerOptions, create_app
from tests.serve.servers import RATE, pcm
from tests.streaming.streamers import speech, tokenizer

START = {"type": "start", "sample_rate": RATE, "format": "s16le"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_as_it_should(tmp_path, number: signal.Signals) -> None:
    pytest.importorskip("uvicorn")
    tokenizer("streaming").save(tmp_path / "t")
    child = start(tmp_path, "serve", "-t", tmp_path / "t", "--latency", "80ms", "--port", 0)
    printed, complaints = tmp_path / "stdout", tmp_path / "stderr"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (printed.exists() and "Ctrl-C" in printed.read_text()):
        time.sleep(0.05)
    os.kill(child, number)
    assert (ended(child), complaints.read_text()) == (0, "")
    assert printed.read_text().endswith("Ctrl-C stops it\nstopped\n")


def _converse(receive: Callable[[], Any], send: Callable[[Any], Any], body: Callable[[Any], Any]) -> list[str]:
    """Run a session between two ends of an ASGI connection; what asyncio reports of forgotten tasks."""
    app = create_app(tokenizer("streaming"), ServerOptions(latency=0.08))
    scope = {
        "type": "websocket",
        "path": "/stream",
        "headers": [(b"host", b"127.0.0.1")],
        "query_string": b"",
        "client": ("127.0.0.1", 9),
    }
    reports: list[str] = []

    async def whole() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reports.append(context["message"]))
        async with app.router.lifespan_context(app):
            others = asyncio.all_tasks()
            session = asyncio.create_task(app(scope, receive, send))  # type: ignore[arg-type]
            await body(session)
            left = asyncio.all_tasks() - others - {session}
            assert left == set()
            del session, left
            gc.collect()

    asyncio.run(asyncio.wait_for(whole(), 60))
    return reports


def test_a_client_that_goes_while_it_is_read_from_and_written_to() -> None:
    gone = asyncio.Event()
    messages: list[dict[str, Any]] = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": json.dumps(START)},
        {"type": "websocket.receive", "bytes": pcm(speech(RATE)).tobytes()},
    ]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await gone.wait()
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(message: dict[str, Any]) -> None:
        if '"tokens"' in message.get("text", ""):
            # Both ends wait, and fail in the same turn of the loop.
            asyncio.get_running_loop().call_later(0.05, gone.set)
            await gone.wait()
            raise OSError("the connection is lost")

    async def body(session: Any) -> None:
        await session

    assert _converse(receive, send, body) == []


def test_a_server_that_stops_takes_its_sessions_along() -> None:
    ready = asyncio.Event()
    messages = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": json.dumps(START)}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        ready.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        pass

    async def body(session: Any) -> None:
        await ready.wait()
        session.cancel()
        with pytest.raises(asyncio.CancelledError):
            await session

    assert _converse(receive, send, body) == []
