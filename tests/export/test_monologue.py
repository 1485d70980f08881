"""Moshi's text stream against a frame-by-frame oracle."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spintok.export import (
    ExportError,
    IndexedDataset,
    Vocabulary,
    Word,
    export_monologue,
    inner_monologue,
    monologue,
)
from spintok.tokens import Tokens
from tests.export.test_conversation import VOCABULARY, corpus, write_words  # noqa: F401
from tests.export.test_hf_tokenizer import make_base

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


def test_an_export_has_the_oracles_text_above_the_codes(corpus, tmp_path):  # noqa: F811
    folder, records, words = corpus
    done = export_monologue(
        [folder], tmp_path / "out", words=words, vocabulary=VOCABULARY, encode_text=encode, pad=PAD, end_of_pad=END
    )
    assert done.utterances == len(records)
    for ids, loss, record in zip(
        IndexedDataset(tmp_path / "out/tokens"), IndexedDataset(tmp_path / "out/tokens.loss"), records, strict=True
    ):
        text, speech = ids.reshape(-1, 2).T
        tokens = record.tokens["primary"]
        assert text.tolist() == oracle(words[record.key], tokens.num_frames, 50)
        assert (speech - VOCABULARY.first_id).tolist() == tokens.codes.tolist()
        assert loss.tolist() == [0, *[1] * (ids.size - 1)]
    named = monologue(tokens, words[record.key], VOCABULARY, encode, delay=0.16)
    text = inner_monologue(
        words[record.key],
        tokens.num_frames,
        50,
        encode,
        pad=VOCABULARY.special("silent_text"),
        end_of_pad=VOCABULARY.special("begin_text"),
        delay=0.16,
    )
    assert named.ids[::2].tolist() == text.tolist()


def test_monologues_that_cannot_be_made(corpus, tmp_path):  # noqa: F811
    folder, records, words = corpus
    some = {key: words[key] for key in list(words)[1:]}
    with pytest.raises(ExportError, match=f"'{records[0].key}': has no words"):
        export_monologue([folder], tmp_path / "out", words=some, vocabulary=VOCABULARY, encode_text=encode)
    with pytest.raises(ExportError, match="without tokens"):
        monologue(Tokens(np.empty(0, dtype=np.int32), 100), [], VOCABULARY, encode)
    with pytest.raises(ExportError, match="pad and end_of_pad are ids"):
        monologue(records[0].tokens["primary"], [], VOCABULARY, encode, pad=VOCABULARY.size)
    with pytest.raises(ExportError, match="contains the name of a speech token"):
        monologue(records[0].tokens["primary"], [Word("\u0200", 0, 1)], VOCABULARY, encode)


def test_from_the_command_line(run, corpus, tmp_path):  # noqa: F811
    folder, records, words = corpus
    make_base("byte-level").save_pretrained(tmp_path / "base")
    assert run(folder, tmp_path / "lm", "--to", "hf-tokenizer", "--base", tmp_path / "base")[0] == 0
    write_words(tmp_path / "words.jsonl", words)
    options = ("--vocabulary", tmp_path / "lm", "--words", tmp_path / "words.jsonl")
    code, out, err = run(
        folder, tmp_path / "m", "--to", "monologue", *options, "--delay", -0.1, "--pad", 3, "--end-of-pad", 0
    )
    assert (code, err) == (0, "")
    assert "monologue, 12 utterances" in out
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "lm")
    ids = IndexedDataset(tmp_path / "m/tokens")[0].reshape(-1, 2)
    tokens = records[0].tokens["primary"]
    expected = inner_monologue(
        words[records[0].key], tokens.num_frames, 50, lambda t: tokenizer(t).input_ids, pad=3, end_of_pad=0, delay=-0.1
    )
    assert ids[:, 0].tolist() == expected.tolist()
    assert (ids[:, 1] - Vocabulary.load(tmp_path / "m").first_id).tolist() == tokens.codes.tolist()
    code, _, err = run(folder, tmp_path / "bad", "--to", "monologue", *options[:2])
    assert (code, err.count("\n")) == (2, 1)
    assert "--to monologue needs --words FILE" in err
