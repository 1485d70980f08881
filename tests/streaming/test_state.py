"""A stream as bytes: of one size, for the same tokenizer only, and safe to read from anybody."""

import numpy as np
import pytest
from safetensors import numpy as st_numpy

from spintok.streaming.tokens import merge
from tests.streaming.streamers import KINDS, speech, tokenizer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_stream_goes_on_elsewhere(kind: str, rate: int) -> None:
    own = tokenizer(kind)
    samples = speech(40_000)
    stream = own.stream(0.16)
    parts, sizes = [], set()
    for start in range(0, len(samples), 1_111):
        parts.append(stream.push(samples[start : start + 1_111], rate))
        state = stream.state()
        sizes.add(len(state))
        stream = own.stream(state=state)
        assert (stream.latency, stream.sample_rate) == (0.16, rate)
    parts.append(stream.close())
    assert merge(parts) == own.encode(samples, rate, latency=0.16)
    assert len(sizes) == 1


def test_a_state_before_the_first_push_and_after_the_last() -> None:
    own = tokenizer("streaming")
    stream = own.stream(state=own.stream(0.08, codebook="coarse").state())
    samples = speech(5_000)
    parts = [stream.push(samples, 16_000), stream.close()]
    assert merge(parts) == own.encode(samples, 16_000, latency=0.08, codebook="coarse")
    ended = own.stream(state=stream.state())
    assert ended.close().num_frames == 0


def test_states_of_others_are_refused() -> None:
    state = tokenizer("streaming").stream(0.16).state()
    with pytest.raises(ValueError, match="another tokenizer"):
        tokenizer("windows").stream(state=state)
    with pytest.raises(ValueError, match=r"another (tokenizer|latency)"):
        tokenizer("streaming").stream(0.08, state=state)
    with pytest.raises(ValueError, match="another codebook"):
        tokenizer("streaming").stream(state=state, codebook="coarse")


def test_damaged_states_are_refused() -> None:
    own = tokenizer("streaming")
    stream = own.stream(0.16)
    stream.push(speech(9_000), 16_000)
    state = stream.state()
    rng = np.random.default_rng(0)
    for data in (b"", b"\x80\x04x", state[:100], state[:-1], state + b"x", b"\xff" * 200):
        with pytest.raises(ValueError, match="state of a stream"):
            own.stream(state=data)
    # Damaged headers: an error of one kind, or the bytes are still a state.
    for _ in range(60):
        damaged = bytearray(state)
        damaged[int(rng.integers(0, 900))] ^= 1 << int(rng.integers(0, 8))
        try:
            own.stream(state=bytes(damaged))
        except ValueError:
            continue


@pytest.mark.parametrize("counter", ["waiting", "frames", "rate", "tail", "samples"])
def test_impossible_counters_are_refused(counter: str) -> None:
    from spintok.streaming.state import _COUNTERS, read_metadata

    own = tokenizer("streaming")
    stream = own.stream(0.16)
    stream.push(speech(9_000), 44_100)
    state = stream.state()
    tensors = st_numpy.load(state)
    counters = tensors["counters"].copy()
    counters[_COUNTERS.index(counter)] = 1 << 40 if counter != "frames" else -1
    changed = st_numpy.save({**tensors, "counters": counters}, read_metadata(state))
    with pytest.raises(ValueError, match="damaged"):
        own.stream(state=changed)


def test_samples_that_wait_have_no_state() -> None:
    stream = tokenizer("streaming").stream(0.08)
    stream.feed(speech(9_000), 16_000)
    with pytest.raises(ValueError, match="step the pool"):
        stream.state()
