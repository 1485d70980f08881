"""Streams in a pool get the tokens that each gets alone."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spintok_kernels.steps import STEPS

from spintok.data.audio import AudioError
from spintok.streaming.engine import Engine
from spintok.streaming.pool import PoolFullError, StreamPool
from spintok.streaming.stream import Stream
from spintok.streaming.tokens import StreamTokens, merge
from tests.streaming.streamers import KINDS, speech, tokenizer


@pytest.fixture(params=["compiled", "torch"])
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that streams share, and those of one stream at a time where nothing is compiled."""
    if request.param == "torch":
        monkeypatch.setenv(STEPS.variable, "torch")
    elif STEPS.choose()[0] == "torch":
        pytest.skip(STEPS.choose()[1])


def test_company_changes_no_code_in_either_kind_of_step(steps: None) -> None:
    own = tokenizer("streaming")
    audio = [speech(14_000 - 500 * seed, seed) for seed in range(18)]
    # More streams than share a step; they end one after the other.
    with own.stream_pool(18, 0.32, workers=1) as pool:
        streams = [pool.open() for _ in audio]
        parts: dict[Stream, list[StreamTokens]] = {stream: [] for stream in streams}
        for start in range(0, 14_000, 4_000):
            pieces = {s: samples[start : start + 4_000] for s, samples in zip(streams, audio, strict=True)}
            for stream, tokens in pool.push(pieces, 16_000).items():
                parts[stream].append(tokens)
        for stream in streams:
            parts[stream].append(pool.close(stream))
    together = own.encode(audio, 16_000, latency=0.32)
    for stream, samples, one in zip(streams, audio, together, strict=True):
        alone = own.encode(samples, 16_000, latency=0.32)
        assert merge(parts[stream]) == alone
        assert one == alone


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=5)
@given(
    pushes=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3_000)), max_size=12),
    workers=st.sampled_from([1, 2]),
)
def test_company_changes_no_code(kind: str, pushes: list[tuple[int, int]], workers: int) -> None:
    own = tokenizer(kind)
    audio = [speech(7_000, seed) for seed in range(3)]
    with own.stream_pool(4, 0.16, workers=workers) as pool:
        streams = [pool.open() for _ in audio]
        parts: dict[Stream, list[StreamTokens]] = {stream: [] for stream in streams}
        places = [0] * 3
        for which, size in [*pushes, *((which, 7_000) for which in range(3))]:
            piece = audio[which][places[which] : places[which] + size]
            places[which] += size
            # Another stream gets nothing, and a third is stepped with it.
            other = streams[(which + 1) % 3]
            for stream, tokens in pool.push({streams[which]: piece, other: piece[:0]}, 16_000).items():
                parts[stream].append(tokens)
        for stream in streams:
            parts[stream].append(pool.close(stream))
    for stream, samples in zip(streams, audio, strict=True):
        assert merge(parts[stream]) == own.encode(samples, 16_000, latency=0.16)


def test_batches_of_slots_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on a CPU: sessions in slots, idle ones among them, in changing company."""
    monkeypatch.setenv(STEPS.variable, "torch")
    own = tokenizer("streaming")

    def pool_of(size: int) -> StreamPool:
        engine = Engine(own, 0.16, [own.codebook()], lambda: own.fingerprint)
        engine.slots = 3
        return StreamPool(engine, size, workers=1)

    audio = [speech(9_000 + 1_000 * seed, seed) for seed in range(5)]
    alone = []
    for samples in audio:
        pool = pool_of(1)
        stream = pool.open()
        alone.append(merge([pool.push({stream: samples}, 16_000)[stream], pool.close(stream)]))
    pool = pool_of(5)
    streams = [pool.open() for _ in audio]
    parts: dict[Stream, list[StreamTokens]] = {stream: [] for stream in streams}
    for start in range(0, 14_000, 2_500):
        pieces = {s: samples[start : start + 2_500] for s, samples in zip(streams, audio, strict=True)}
        for stream, tokens in pool.push(pieces, 16_000).items():
            parts[stream].append(tokens)
    for stream, want in zip(streams, alone, strict=True):
        parts[stream].append(pool.close(stream))
        assert merge(parts[stream]) == want
    # A slot computes what a session alone computes, up to rounding.
    codes = np.concatenate([tokens.codes for tokens in alone])
    single = np.concatenate([own.encode(samples, 16_000, latency=0.16).codes for samples in audio])
    assert (codes == single).mean() > 0.98


def test_feeding_while_another_thread_steps() -> None:
    own = tokenizer("streaming")
    audio = [speech(32_000, seed) for seed in range(3)]
    with own.stream_pool(3, 0.08, workers=2) as pool:
        streams = [pool.open() for _ in audio]
        done = threading.Event()

        def feed() -> None:
            for start in range(0, 32_000, 500):
                for stream, samples in zip(streams, audio, strict=True):
                    stream.feed(samples[start : start + 500], 16_000)
            for stream in streams:
                stream.finish()
            done.set()

        thread = threading.Thread(target=feed)
        thread.start()
        parts: dict[Stream, list[StreamTokens]] = {stream: [] for stream in streams}
        while True:
            over = done.is_set()
            found = pool.step()
            for stream, tokens in found.items():
                parts[stream].append(tokens)
            if over and not found:
                break
        thread.join()
    for stream, samples in zip(streams, audio, strict=True):
        assert merge(parts[stream]) == own.encode(samples, 16_000, latency=0.08)


def test_sessions_come_and_go() -> None:
    own = tokenizer("streaming")
    samples = speech(9_000)
    with own.stream_pool(2, 0.08) as pool:
        first, second = pool.open(), pool.open()
        with pytest.raises(PoolFullError, match="holds 2 streams"):
            pool.open()
        parts = [pool.push({first: samples[:4_000]}, 16_000)[first]]
        state = first.state()
        pool.remove(first)
        with pytest.raises(ValueError, match="not in the pool"):
            pool.push({first: samples}, 16_000)
        moved = pool.open(state)
        parts += [pool.push({moved: samples[4_000:]}, 16_000)[moved], pool.close(moved)]
        assert merge(parts) == own.encode(samples, 16_000, latency=0.08)
        assert pool.streams == [second]
    # Without its threads a pool still works.
    assert pool.close(second).num_frames == 0


def test_a_bad_push_leaves_all_streams_as_they_were() -> None:
    own = tokenizer("streaming")
    samples = speech(9_000)
    with own.stream_pool(2, 0.08) as pool:
        first, second = pool.open(), pool.open()
        with pytest.raises(AudioError, match="NaN"):
            pool.push({first: samples, second: np.full(5, np.nan)}, 16_000)
        assert merge([pool.push({first: samples}, 16_000)[first], pool.close(first)]) == own.encode(
            samples, 16_000, latency=0.08
        )
    with pytest.raises(ValueError, match="at least 1"):
        own.stream_pool(0)
