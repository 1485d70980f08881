"""A stream gives the tokens of ``encode(latency=)`` in any cutting, and says what it cannot do."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spintok.data.audio import AudioError
from spintok.frames import num_frames
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.streaming.policy import Policy
from spintok.streaming.stream import Stream
from spintok.streaming.tokens import StreamTokens, merge
from spintok.tokenizer import Tokenizer
from tests.small_models import tiny_encoder
from tests.streaming.streamers import KINDS, speech, tokenizer
from tests.test_frame_rates import SLOW


def push_all(stream: Stream, samples: np.ndarray, rate: int, cuts: list[int]) -> list[StreamTokens]:
    """What the stream returns for pieces of the sizes ``cuts``, for the rest, and at its end."""
    found, start = [], 0
    for size in [*cuts, len(samples)]:
        found.append(stream.push(samples[start : start + size], rate))
        start += size
    return [*found, stream.close()]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10)
@given(
    cuts=st.lists(st.one_of(st.integers(0, 3), st.integers(0, 9_000)), max_size=12),
    length=st.sampled_from([0, 100, 399, 400, 5_199, 12_123]),
    rate=st.sampled_from([16_000, 16_000, 8_000, 44_100]),
    frames=st.sampled_from([2, 4, 16]),
)
def test_no_cutting_changes_a_code(kind: str, cuts: list[int], length: int, rate: int, frames: int) -> None:
    samples = speech(length, seed=length % 7)
    whole = tokenizer(kind).encode(samples, rate, latency=frames / 50)
    assert whole.num_frames == num_frames((2 * length * 16_000 + rate) // (2 * rate))
    parts = push_all(tokenizer(kind).stream(frames / 50), samples, rate, cuts)
    np.testing.assert_array_equal(np.concatenate([part.codes for part in parts]), whole.codes)


def test_single_samples() -> None:
    samples = speech(2_000)
    parts = push_all(tokenizer("streaming").stream(0.04), samples, 16_000, [1] * 2_000)
    assert merge(parts) == tokenizer("streaming").encode(samples, 16_000, latency=0.04)
    assert max(part.num_frames for part in parts) == 2


def test_frames_are_final_after_the_latency() -> None:
    """A chunk is final when its samples are there, and 80 samples more that its last frame reads."""
    stream = tokenizer("streaming").stream(0.08)
    assert stream.latency == 0.08
    assert stream.push(speech(4 * 320 + 79), 16_000).num_frames == 0
    assert stream.push(speech(1), 16_000).num_frames == 4
    assert stream.num_frames == 4
    assert stream.sample_rate == 16_000


@pytest.mark.parametrize("kind", KINDS)
def test_runs_that_cross_pushes_are_marked(kind: str) -> None:
    # Pauses have long runs.
    samples = np.concatenate([speech(8_000), np.zeros(16_000, dtype=np.float32), speech(8_000, 3)])
    parts = push_all(tokenizer(kind).stream(0.08), samples, 16_000, [1_600] * 18)
    whole = tokenizer(kind).encode(samples, 16_000, latency=0.08)
    durations: list[int] = []
    for part in parts:
        own = part.durations.tolist()
        if part.continues:
            durations[-1] += own.pop(0)
        durations += own
    assert durations == whole.durations.tolist()
    assert any(part.continues for part in parts)
    starts = np.concatenate([part.times[:, 0] for part in parts])
    bounds = [part.times[0, 0] for part in parts if part.continues]
    assert np.allclose(np.setdiff1d(starts, bounds), whole.times[:, 0])


def test_features_stream_too() -> None:
    own = tokenizer("streaming")
    samples = speech(16_000)
    stream = own.stream(0.08)
    parts = [stream.push_features(samples[start : start + 3_000], 16_000, layer=1) for start in range(0, 16_000, 3_000)]
    parts.append(stream.close_features(layer=1))
    found = torch.cat(parts)
    assert found.shape == (49, 32)
    assert found.dtype == torch.float32
    with torch.inference_mode():
        masked, _ = own.encoder.hidden_states(torch.from_numpy(samples)[None], layers=[1], chunk=4)  # type: ignore[call-arg]
    torch.testing.assert_close(found, masked[0][0], atol=5e-3, rtol=5e-3)


def test_features_and_tokens_of_one_stream() -> None:
    samples = speech(16_000)
    whole = tokenizer("streaming").encode(samples, 16_000, latency=0.08)
    stream = tokenizer("streaming").stream(0.08)
    assert stream.push_features(samples[:8_000], 16_000).shape == (24, 32)
    rest = merge([stream.push(samples[8_000:], 16_000), stream.close()])
    assert rest.start == 24
    np.testing.assert_array_equal(rest.codes, whole.codes[24:])
    assert rest.continues == (whole.codes[24] == whole.codes[23])
    with pytest.raises(ValueError, match="layers 0"):
        tokenizer("streaming").stream(0.08).push_features(samples, 16_000, layer=3)
    own = tokenizer("streaming")
    low = Tokenizer(own.encoder, own.codebooks.values(), layer=1)
    with pytest.raises(ValueError, match="up to that of the codes"):
        low.stream(0.08).push_features(samples, 16_000, layer=2)


def test_another_codebook() -> None:
    samples = speech(9_000)
    own = tokenizer("streaming")
    stream = own.stream(0.16, codebook="coarse")
    found = merge([stream.push(samples, 16_000), stream.close()])
    assert found == own.encode(samples, 16_000, latency=0.16, codebook="coarse")
    assert found.codebook_size == 5


def test_integers_and_channels() -> None:
    samples = (speech(9_000) * 20_000).astype(np.int16)
    whole = tokenizer("streaming").encode(samples, 16_000, latency=0.16)
    for form in (samples, torch.from_numpy(samples), np.stack([samples, samples])):
        stream = tokenizer("streaming").stream(0.16)
        assert merge([stream.push(form, 16_000), stream.close()]) == whole


def test_what_a_stream_refuses() -> None:
    stream = tokenizer("streaming").stream(0.16)
    stream.push(speech(1_000), 16_000)
    with pytest.raises(AudioError, match="began with 16000 Hz"):
        stream.push(speech(1_000), 8_000)
    with pytest.raises(AudioError, match="NaN"):
        stream.push(np.full(10, np.nan), 16_000)
    stream.push(speech(3_000), 16_000)
    stream.close()
    assert stream.num_frames == num_frames(4_000)
    assert stream.close().num_frames == 0
    with pytest.raises(AudioError, match="closed"):
        stream.push(speech(1_000), 16_000)
    with pytest.raises(ValueError, match=r"multiple of 0\.02"):
        tokenizer("streaming").stream(0.05)
    with pytest.raises(ValueError, match="unknown codebook"):
        tokenizer("streaming").stream(codebook="fine")


def test_the_number_of_threads_is_restored() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        tokenizer("streaming").encode(speech(9_000), 16_000, latency=0.16)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_windows_of_another_frame_rate() -> None:
    encoder = tiny_encoder(config=SLOW)
    torch.manual_seed(1)
    book = Codebook(CodebookConfig("primary", 7, 16, 4, "dot", projection=True))
    slow = Tokenizer(encoder, [book])
    samples = speech(20_000)
    stream = slow.stream(0.16)
    found = merge(push_all(stream, samples, 16_000, [777, 1, 9_000]))
    assert found == slow.encode(samples, 16_000, latency=0.16)
    assert found.num_frames == num_frames(20_000, slow.grid)
    assert stream.engine.policy == Policy(2, 2, slow.grid)
