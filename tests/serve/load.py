"""``spintok serve`` under load and attack: honest clients speak in real time while others do all that is wrong.

    PYTHONPATH=.:tests python -m tests.serve.load --honest 20 --clients 200 --seconds 120
    PYTHONPATH=.:tests python -m tests.serve.load --honest 50 --clients 50 --seconds 60     only honest clients

Prints what the honest clients waited for their codes, what became of the rude ones, and the CPU time of both sides.
Exits with 1 if a code differs from ``encode(latency=)`` of what was sent, an honest session ends early, the 99th
percentile of the wait reaches a chunk, the server grows by 512 MB, or it does not answer afterwards. Clients and server
share the machine.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np
import soundfile
import websockets

import spintok
from spintok.frames import num_samples
from spintok.streaming.policy import parse_latency
from spintok.tokenizer import Tokenizer
from tests.serve.rude import RUDE

__all__ = ["Honest", "Siege", "besiege", "differing", "percentiles"]

RATE = 16_000
# What the server may take beyond its memory before the first client.
MOST_GROWTH = 512 << 20
# A client that goes on answers within this.
IDLE_SECONDS = 10


class Honest:
    """Speaks for some seconds at the pace of speech, in pieces of 20 to 100 ms, and notes when its codes come.

    Attributes:
        speech: what it says, (S,) int16 at 16 kHz.
        codes: those that have come.
        waits: seconds from sending the last sample of a chunk to its codes.
        failure: why the session ended early; None if it did not.
    """

    def __init__(self, speech: np.ndarray, rng: Random) -> None:
        self.speech = speech
        self.codes: list[int] = []
        self.waits: list[float] = []
        self.failure: str | None = None
        self._rng = rng
        self._sent: list[int] = []
        self._times: list[float] = []

    async def talk(self, address: str) -> None:
        """The whole session."""
        try:
            async with websockets.connect(f"ws://{address}/stream", compression=None, open_timeout=60) as socket:
                await socket.send(json.dumps({"type": "start", "sample_rate": RATE, "format": "s16le"}))
                listening = asyncio.create_task(self._listen(socket))
                await self._speak(socket)
                await listening
        except (OSError, websockets.WebSocketException, TimeoutError) as error:
            self.failure = f"{type(error).__name__}: {error}"

    async def _speak(self, socket: Any) -> None:
        began = time.perf_counter()
        place = 0
        while place < len(self.speech):
            end = min(place + self._rng.randrange(RATE // 50, RATE // 10), len(self.speech))
            # A piece can be sent when its last sample has been spoken.
            await asyncio.sleep(max(0.0, began + end / RATE - time.perf_counter()))
            self._sent.append(end)
            self._times.append(time.perf_counter())
            await socket.send(self.speech[place:end].tobytes())
            place = end
        await socket.send(json.dumps({"type": "end"}))

    async def _listen(self, socket: Any) -> None:
        async for message in socket:
            now = time.perf_counter()
            answer = json.loads(message)
            if answer["type"] == "error":
                self.failure = answer["reason"]
            if answer["type"] != "tokens":
                continue
            self.codes += answer["codes"]
            needed = num_samples(len(self.codes))
            if self._sent and self._sent[-1] >= needed:
                self.waits.append(now - self._times[bisect_left(self._sent, needed)])


class Siege:
    """What a load did.

    Attributes:
        honest: the honest clients.
        outcomes: how often a rude client of a kind met an end: of (kind, end).
        memory: bytes of the server over time, the first before any client.
    """

    def __init__(self, honest: Sequence[Honest]) -> None:
        self.honest = honest
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.memory: list[int] = []


async def besiege(address: str, process: int, honest: Sequence[Honest], rude: int, seconds: float, seed: int) -> Siege:
    """Let the honest clients speak to a server, and ``rude`` others disturb it for so many seconds."""
    siege = Siege(honest)
    siege.memory.append(resident(process))
    speech = honest[0].speech
    over = time.monotonic() + seconds
    watching = asyncio.create_task(_watch(siege, process))
    # The honest ones come first, within half a second, and not in step.
    talks = [asyncio.create_task(_later(one, address, 0.5 * i / len(honest))) for i, one in enumerate(honest)]
    await asyncio.sleep(1)
    kinds = list(RUDE)
    others = [
        asyncio.create_task(_pester(siege, kinds[i % len(kinds)], address, Random(f"{seed} {i}"), speech, over))
        for i in range(rude)
    ]
    await asyncio.gather(*talks)
    await asyncio.wait(others, timeout=max(0.0, over - time.monotonic()) + 1) if others else None
    for task in others:
        # It may still be connected, as one that says nothing is until the server closes.
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    watching.cancel()
    return siege


async def _later(one: Honest, address: str, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await one.talk(address)


async def _pester(siege: Siege, kind: str, address: str, rng: Random, speech: np.ndarray, over: float) -> None:
    """Be rude again and again."""
    while time.monotonic() < over:
        await asyncio.sleep(2 * rng.random())
        try:
            end = await RUDE[kind](address, rng, speech)
        except websockets.ConnectionClosed as closed:
            end = f"closed with {closed.rcvd.code if closed.rcvd else 1006}"
        except ConnectionError:
            end = "closed"
        except (OSError, EOFError, TimeoutError, websockets.WebSocketException) as error:
            end = type(error).__name__
        siege.outcomes[kind, end] += 1


async def _watch(siege: Siege, process: int) -> None:
    while True:
        siege.memory.append(resident(process))
        await asyncio.sleep(0.25)


def resident(process: int) -> int:
    """Bytes of memory that a process holds (Linux)."""
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def busy(process: int) -> float:
    """Seconds of CPU time that a process has taken (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def differing(honest: Sequence[Honest], tokenizer: Tokenizer, latency: float) -> tuple[int, int]:
    """How many codes there are, and how many differ from ``encode``; missing ones do."""
    speeches = [one.speech for one in honest]
    expected = [tokens.codes for tokens in tokenizer.encode(speeches, RATE, latency=latency)]
    wrong = 0
    for one, codes in zip(honest, expected, strict=True):
        got = np.array(one.codes[: len(codes)], dtype=np.int32)
        wrong += abs(len(one.codes) - len(codes)) + int((got != codes[: len(got)]).sum())
    return sum(map(len, expected)), wrong


def percentiles(honest: Sequence[Honest]) -> tuple[float, float, float]:
    """p50, p95 and p99 of the waits of all of them, in seconds."""
    waits = [wait for one in honest for wait in one.waits]
    p50, p95, p99 = np.percentile(waits, (50, 95, 99)) if waits else (float("inf"),) * 3
    return float(p50), float(p95), float(p99)


def recordings(number: int, seconds: float, rng: Random) -> list[np.ndarray]:
    """Speech of each client, (S,) int16: real recordings end to end, begun at another place by each."""
    folder = Path(__file__).parents[2]
    paths = sorted((folder.parent / "shared/data/dev/libri").rglob("*.flac")) or sorted(
        (folder / "tests/speech").glob("*.flac")
    )
    rng.shuffle(paths)
    loop = np.concatenate([soundfile.read(path, dtype="int16")[0] for path in paths[:40]])
    size = int(seconds * RATE)
    return [np.resize(np.roll(loop, -rng.randrange(len(loop))), size) for _ in range(number)]


@contextlib.contextmanager
def server(tokenizer: str, latency: str, sessions: int) -> Iterator[tuple[str, int]]:
    """``spintok serve`` on a free port: its host and port, and the number of its process."""
    command = [sys.executable, "-m", "spintok", "serve", "--tokenizer", tokenizer, "--latency", latency, "--port", "0"]
    command += ["--sessions", str(sessions), "--idle-seconds", str(IDLE_SECONDS), "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = line.partition("http://")[2].partition("/")[0]
            if not address:
                raise SystemExit(f"spintok serve did not start: {line!r}")
            _ready(address)
            yield address, process.pid
        finally:
            process.terminate()


def _ready(address: str) -> None:
    for _ in range(200):
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://{address}/health", timeout=30).status_code == 200:
                return
        time.sleep(0.05)
    raise SystemExit("spintok serve does not answer /health")


def counters(address: str) -> dict[str, float]:
    """What ``/metrics`` counts, by name and labels."""
    lines = httpx.get(f"http://{address}/metrics", timeout=30).text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


async def _new_client(address: str) -> Honest:
    """Somebody who comes after all the others."""
    one = Honest(recordings(1, 3, Random(1))[0], Random(1))
    await one.talk(address)
    return one


def complaints(address: str, siege: Siege, tokenizer: Tokenizer, latency: float) -> list[str]:
    """What is wrong with a server after a siege."""
    found = [f"an honest session ended early: {one.failure}" for one in siege.honest if one.failure]
    if httpx.get(f"http://{address}/health", timeout=30).json().get("status") != "ok":
        found.append("/health does not answer ok")
    # Sessions of clients that are gone end when the server notices, the silent ones after --idle-seconds.
    for _ in range(IDLE_SECONDS * 10):
        values = counters(address)
        if values["spintok_sessions"] == 0:
            break
        time.sleep(0.5)
    else:
        found.append(f"/metrics still counts {values['spintok_sessions']:.0f} sessions")
    frames = sum(len(one.codes) for one in siege.honest)
    if values["spintok_frames_total"] < frames:
        found.append(f"/metrics counts {values['spintok_frames_total']:.0f} frames, {frames} were received")
    if values["spintok_sessions_opened_total"] < len(siege.honest):
        found.append(f"/metrics counts {values['spintok_sessions_opened_total']:.0f} opened sessions")
    refused = sum(value for name, value in values.items() if name.startswith("spintok_refused_total"))
    seen = sum(count for (_, end), count in siege.outcomes.items() if end in ("closed with 1008", "closed with 1013"))
    if refused < seen:
        found.append(f"/metrics counts {refused:.0f} refusals, {seen} were received")
    last = asyncio.run(_new_client(address))
    if last.failure or differing([last], tokenizer, latency)[1]:
        found.append(f"a new client is not served: {last.failure or 'its codes differ'}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", default="dc-spin-stream-10m-en", help="a name or folder")
    parser.add_argument("--latency", type=float, default=320, help="latency in milliseconds")
    parser.add_argument("--clients", type=int, default=200, help="honest and rude ones")
    parser.add_argument("--honest", type=int, default=20)
    # Room for some of the rude, so that they can do harm, and not for more than the machine carries.
    parser.add_argument("--sessions", type=int, help="that the server takes (default: 10 more than honest ones)")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    name = f"{options.latency:g}ms"
    latency = parse_latency(name)
    rng = Random(options.seed)
    honest = [Honest(speech, Random(rng.random())) for speech in recordings(options.honest, options.seconds, rng)]
    rude = max(0, options.clients - options.honest)
    with server(options.tokenizer, name, options.sessions or options.honest + 10) as (address, process):
        began, before = time.perf_counter(), (busy(process), time.process_time())
        siege = asyncio.run(besiege(address, process, honest, rude, options.seconds, options.seed))
        lasted = time.perf_counter() - began
        shares = [(busy(process) - before[0]) / lasted, (time.process_time() - before[1]) / lasted]
        tokenizer = spintok.load(options.tokenizer, device="cpu")
        wrong = complaints(address, siege, tokenizer, latency)
    codes, differ = differing(honest, tokenizer, latency)
    waits = percentiles(honest)
    chunk = tokenizer.stream(latency).engine.policy.chunk / tokenizer.frame_rate
    grown = max(siege.memory) - siege.memory[0]
    if siege.outcomes:
        print(f"\n| rude clients, {rude} in all | what became of them | times |\n|---|---|---|")
        for (kind, end), count in sorted(siege.outcomes.items()):
            print(f"| {kind} | {end} | {count} |")
    columns = "honest | codes | differ | wait p50, ms | p95 | p99 | chunk"
    columns += " | server, % of a core | clients, % of a core | server grew by, MB"
    print(f"\n| {columns} |\n|" + "---|" * 10)
    milliseconds = " | ".join(f"{1000 * value:.0f}" for value in (*waits, chunk))
    cores = " | ".join(f"{100 * share:.0f}" for share in shares)
    print(f"| {options.honest} | {codes:,} | {differ} | {milliseconds} | {cores} | {grown / 1e6:.0f} |\n")
    if differ:
        wrong.append(f"{differ} codes differ from encode")
    if waits[2] >= chunk:
        wrong.append(f"the 99th percentile of the wait, {1000 * waits[2]:.0f} ms, is not below a chunk")
    if grown > MOST_GROWTH:
        wrong.append(f"the server grew by {grown / 1e6:.0f} MB")
    print("\n".join(wrong) or "all held")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
