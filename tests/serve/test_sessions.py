"""Sessions of a server: the codes that ``encode`` gives, whatever the cutting and the company."""

import asyncio
import random

import numpy as np
import pytest
from small_decoders import tiny_decoder, untrained_decoder

from spintok.decoder import CodebookMismatchError
from spintok.serve import ServerOptions, create_app
from spintok.serve.live_session import LiveSession
from spintok.serve.protocol import Start
from spintok.serve.sessions import FEW, LEEWAY, next_step
from tests.serve.servers import RATE, Client, pcm, run, running
from tests.streaming.streamers import speech, tokenizer

TOKENIZER = tokenizer("streaming")


def _expected(samples: np.ndarray, rate: int = RATE) -> list[int]:
    return TOKENIZER.encode(samples, rate, latency=0.08).codes.tolist()


@pytest.mark.parametrize("rate", [16000, 8000, 44100])
def test_a_session_gives_the_codes_of_encode(address, rate) -> None:
    samples = pcm(speech(3 * rate // 2))

    async def talk() -> Client:
        client = await Client.open(address, sample_rate=rate)
        await client.speak(samples, 777)
        await client.send({"type": "end"})
        await client.until("end")
        return client

    client = run(talk())
    assert client.codes == _expected(samples, rate)
    ready, end = client.messages[0], client.messages[-1]
    assert ready["fingerprint"] == TOKENIZER.at(0.08).fingerprint
    assert ready["codebook_size"] == 20
    assert end["frames"] == len(client.codes)
    parts = [m for m in client.messages if m["type"] == "tokens"]
    assert [m["start"] for m in parts] == list(np.cumsum([0] + [len(m["codes"]) for m in parts])[:-1])
    # Runs that go on are whole once they are joined.
    durations: list[int] = []
    for part in parts:
        first, *rest = part["durations"]
        durations[-1:] = [durations[-1] + first] if part["continues"] else [*durations[-1:], first]
        durations += rest
    assert durations == TOKENIZER.encode(samples, rate, latency=0.08).durations.tolist()


def test_float_samples_give_the_same_codes(address) -> None:
    samples = pcm(speech(RATE))

    async def talk() -> list[int]:
        client = await Client.open(address, format="f32le")
        await client.send((samples.astype("<f4") / 32768).tobytes())
        await client.send({"type": "end"})
        await client.until("end")
        return client.codes

    assert run(talk()) == _expected(samples)


def test_sessions_do_not_mix(address) -> None:
    """Clients that speak, stall and vanish leave the codes of the others as they are."""
    voices = [pcm(speech(RATE // 2 + 1000 * i, seed=i)) for i in range(12)]

    async def talk(index: int) -> list[int] | None:
        choose = random.Random(index)
        client = await Client.open(address)
        for start in range(0, len(voices[index]), 1600):
            await client.send(voices[index][start : start + 1600].tobytes())
            await asyncio.sleep(choose.random() * 0.02)
            if index % 3 == 2 and start > 4000:
                client.connection.transport.abort()
                return None
        await client.send({"type": "end"})
        await client.until("end")
        return client.codes

    async def all_of_them() -> list[list[int] | None]:
        return await asyncio.gather(*map(talk, range(len(voices))))

    found = run(all_of_them())
    for index, codes in enumerate(found):
        assert (codes is None) == (index % 3 == 2)
        if codes is not None:
            assert codes == _expected(voices[index]), index


def test_a_session_goes_on_elsewhere(address) -> None:
    samples = pcm(speech(2 * RATE))

    async def talk(other: str) -> list[int]:
        first = await Client.open(address)
        await first.speak(samples[:13_333], 1000)
        await first.send({"type": "state"})
        state = (await first.until("state"))["state"]
        await first.connection.close()
        second = await Client.open(other, state=state)
        await second.speak(samples[13_333:], 1000)
        await second.send({"type": "end"})
        await second.until("end")
        return first.codes + second.codes

    with running(TOKENIZER) as other:
        assert run(talk(other)) == _expected(samples)


def test_features_come_beside_the_codes(address) -> None:
    samples = pcm(speech(RATE))
    wanted = [1, None, 2, 1]

    async def one(layer: int | None) -> Client:
        client = await Client.open(address, features=layer)
        await client.speak(samples, 3200)
        await client.send({"type": "end"})
        await client.until("end")
        return client

    async def talk() -> list[Client]:
        return await asyncio.gather(*map(one, wanted))

    for layer, client in zip(wanted, run(talk()), strict=True):
        assert client.codes == _expected(samples)
        if layer is None:
            assert not client.features
            continue
        stream = TOKENIZER.stream(latency=0.08)
        expected = np.concatenate([stream.push_features(samples, RATE, layer), stream.close_features(layer)])
        assert np.array_equal(np.concatenate(client.features), expected)


def test_a_voice_speaks_the_tokens() -> None:
    samples = pcm(speech(RATE))
    decoder = untrained_decoder(TOKENIZER, "primary")

    async def talk(address: str, voice: str) -> Client:
        client = await Client.open(address, voice=voice)
        await client.speak(samples, 1600)
        await client.send({"type": "end"})
        await client.until("end")
        return client

    async def refused(address: str) -> str:
        return (await (await Client.open(address, voice="anna")).refused())[0]

    with running(TOKENIZER, decoder) as address:
        client = run(talk(address, "nobody"))
        assert "voices are nobody" in run(refused(address))
    expected = decoder.decode(np.array(client.codes), "nobody").numpy()
    heard = np.concatenate(client.audio) / 32767
    assert client.messages[0]["voices"] == ["nobody"]
    # 16 bits, and the float rounding of a stream.
    np.testing.assert_allclose(heard, expected, rtol=0, atol=2e-4)
    assert client.codes == _expected(samples)


def test_a_decoder_of_other_tokens_is_refused() -> None:
    with pytest.raises(CodebookMismatchError):
        create_app(TOKENIZER, ServerOptions(latency=0.08), tiny_decoder())


def test_a_decoder_of_the_latency_or_of_whole_recordings_is_taken() -> None:
    for heard in (TOKENIZER, TOKENIZER.at(0.08)):
        create_app(TOKENIZER, ServerOptions(latency=0.08), untrained_decoder(heard, "primary"))
    with pytest.raises(CodebookMismatchError):
        create_app(TOKENIZER, ServerOptions(latency=0.16), untrained_decoder(TOKENIZER.at(0.08), "primary"))


@pytest.fixture(scope="module")
def speech_with_pauses() -> np.ndarray:
    turns = pytest.importorskip("tests.streaming.test_turns", reason="spintok[turns] is not installed")
    return pcm(turns.with_pauses("beth_river", "eve_bus"))


def test_turns_are_told(address, speech_with_pauses) -> None:
    half = len(speech_with_pauses) // 2

    async def talk() -> list[dict]:
        first = await Client.open(address, turns=True)
        await first.speak(speech_with_pauses[:half], 1600)
        await first.send({"type": "state"})
        state = (await first.until("state"))["state"]
        await first.connection.close()
        second = await Client.open(address, turns=True, state=state)
        await second.speak(speech_with_pauses[half:], 1600)
        await second.send({"type": "end"})
        await second.until("end")
        return first.messages + second.messages

    events = [m for m in run(talk()) if m["type"].startswith("speech_")]
    assert [m["type"] for m in events] == ["speech_start", "speech_end"] * 2
    # Two recordings of 3 s, each after a pause of 1.5 s.
    assert 1.2 < events[0]["seconds"] < 1.8
    assert 5.6 < events[2]["seconds"] < 6.4


def test_a_label_closes_the_turn(address, speech_with_pauses) -> None:
    async def talk() -> list[dict]:
        client = await Client.open(address, turns=True)
        await client.speak(speech_with_pauses[: 3 * RATE], 1600)
        await client.until("speech_start")
        await client.send({"type": "turn", "label": "answer"})
        await client.until("speech_end")
        await client.connection.close()
        return client.messages

    kinds = [m["type"] for m in run(talk()) if m["type"] in ("speech_start", "turn", "speech_end")]
    assert kinds == ["speech_start", "turn", "speech_end"]


def test_an_end_during_a_step_waits_for_the_rest() -> None:
    """The client may end its stream while its samples are in a step; its last frames still come."""
    samples = (pcm(speech(RATE // 2)) / np.float32(32768)).astype(np.float32)
    stream = TOKENIZER.stream(latency=0.08)
    session = LiveSession(Start(RATE, "s16le"), stream, lambda: None, 1e9)
    run(session.feed(samples))
    parts = session.take(len(samples))
    session.advance(parts)
    session.end()
    codes = [code for tokens in stream.steps() for code in tokens.codes]
    assert session.answers() == []
    assert session.has_work()
    session.advance(session.take(1))
    codes += [code for tokens in stream.steps() for code in tokens.codes]
    assert [m["type"] for m in session.answers() if m is not None] == ["end"]
    assert codes == TOKENIZER.encode(samples, RATE, latency=0.08).codes.tolist()


def _session(backlog: float = 1e9) -> LiveSession:
    return LiveSession(Start(RATE, "s16le"), TOKENIZER.stream(latency=0.08), lambda: None, backlog)


def test_a_step_waits_for_the_last_sample_of_a_chunk() -> None:
    session = _session()
    needed = 3 * 320 + 400
    run(session.feed(np.zeros(needed - 2, np.float32)))
    assert not session.has_work()
    run(session.feed(np.zeros(2, np.float32)))
    assert session.has_work()
    # Nor is there work when one sample is missing, which rounding leaves open, and none has come.
    run(session.feed(np.zeros(4 * 320 - 1, np.float32)))
    session.advance(session.take(needed + 4 * 320))
    list(session.stream.steps())
    assert not session.has_work()
    # A backlog that is smaller than a chunk is fed to the stream, or it would never be complete.
    small = _session(backlog=100)
    run(small.feed(np.zeros(101, np.float32)))
    assert small.has_work()


def test_whoever_sends_faster_than_real_time_waits_for_those_who_do_not() -> None:
    sessions = [_session() for _ in range(FEW + 2)]
    fast, slow = sessions[:-1], sessions[-1]
    taken = round((LEEWAY + 1) * RATE)
    for i, session in enumerate(fast):
        run(session.feed(np.zeros(taken + 100 * i, np.float32)))
        session.take(taken + 100 * i)
        run(session.feed(np.zeros(RATE, np.float32)))
    now = slow.opened
    assert next_step(sessions, now) == fast[:FEW]
    run(slow.feed(np.zeros(RATE, np.float32)))
    assert next_step(sessions, now) == [slow]
    # They are as live as others once their time has come.
    assert next_step(sessions, now + 2) == sessions
