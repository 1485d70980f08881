"""Moshi's text stream against a frame-by-frame oracle."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spintok.export import ExportError, Word, inner_monologue

PAD, END = 3, 0


def encode(text):
    return [ord(letter) for letter in text]


def oracle(words, num_frames, rate):
    """Frame by frame, with a queue of the ids of all words that have started, as a model would write them."""
    stream, queue, waiting = [], deque(), deque(words)
    for frame in range(num_frames):
        while waiting and waiting[0].start * rate < frame + 1 - 1e-6:
            queue.extend(encode(waiting.popleft().text))
        if queue:
            if stream and stream[-1] == PAD:
                stream[-1] = END
            stream.append(queue.popleft())
        else:
            stream.append(PAD)
    return stream


@settings(max_examples=300, deadline=None)
@given(
    starts=st.lists(st.integers(0, 120), max_size=8),
    lengths=st.lists(st.integers(0, 6), min_size=8, max_size=8),
    num_frames=st.integers(0, 70),
    rate=st.sampled_from([12.5, 25.0, 50.0]),
)
def test_every_frame_against_the_oracle(starts, lengths, num_frames, rate):
    words = [Word("abcdef"[:n], s / 25, s / 25) for s, n in zip(sorted(starts), lengths, strict=False)]
    found = inner_monologue(words, num_frames, rate, encode, pad=PAD, end_of_pad=END)
    assert found.dtype == np.int32
    assert found.tolist() == oracle(words, num_frames, rate)


def test_by_hand():
    words = [
        Word("ab", 0.0, 0.1),
        Word("c", 0.33, 0.4),
        Word("defg", 0.4, 0.5),
        Word("h", 0.48, 0.6),
        Word("i", 0.9, 1),
    ]
    # At 12.5 frames a second the words start in frames 0, 4, 5, 6 and 11; h waits for the end of defg.
    expected = [*b"ab", PAD, END, *b"cdefgh", END, ord("i"), PAD]
    assert inner_monologue(words, 13, 12.5, encode, pad=PAD, end_of_pad=END).tolist() == expected
    early = inner_monologue(words, 13, 12.5, encode, pad=PAD, end_of_pad=END, delay=-0.16)
    assert early.tolist() == [*b"abcdefgh", END, ord("i"), PAD, PAD, PAD]
    late = inner_monologue(words, 13, 12.5, encode, pad=PAD, end_of_pad=END, delay=0.16)
    # i would start after the last frame, and no padding ends without a word.
    assert late.tolist() == [PAD, END, *expected[:10], PAD]


def test_words_out_of_order_are_refused():
    with pytest.raises(ExportError, match="'a' at 0.10 s starts before the previous one"):
        inner_monologue([Word("b", 0.2, 0.3), Word("a", 0.1, 0.2)], 9, 50, encode, pad=PAD, end_of_pad=END)
