"""Sequences: spelled out by hand, and read back."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spintok.export.errors import ExportError
from spintok.export.packed.windows import pack, shuffled
from spintok.export.sequences.base import TokenSequence, read_speech, speech_only
from spintok.export.sequences.dialogue import Turn, cap_silence, full_duplex, half_duplex, silent_frames
from spintok.export.sequences.multi_codebook import all_codebooks, delay, read_codebooks, undelay
from spintok.export.sequences.speech_text import Word, interleave, speech_to_text, text_to_speech
from spintok.export.vocabulary import SPECIALS, Vocabulary, private_use_character
from spintok.tokens import Tokens, expand

FIRST, K = 1000, 50
VOCABULARY = Vocabulary("t", "f", {"primary": K, "auxiliary": 70}, first_id=FIRST, durations=4)
CODES = st.lists(st.integers(0, K - 1), min_size=1, max_size=60)


def encode(text):
    """A character an id: text ids lie below FIRST."""
    return [ord(character) % FIRST for character in text]


def tokens(*codes):
    return Tokens(np.array(codes), K)


def spelled(sequence):
    """Ids as marks: roles, text characters, s0... for codes: an oracle of its own layout arithmetic."""
    names = [f"s{i}" for i in range(K)] + [f"a{i}" for i in range(70)] + [f"d{i}" for i in range(1, 5)]
    names += list(SPECIALS.values())
    return [names[i - FIRST] if i >= FIRST else chr(i) for i in sequence.ids.tolist()]


def counted(sequence):
    return [mark for mark, loss in zip(spelled(sequence), sequence.loss_mask, strict=True) if loss]


def test_speech_only():
    found = speech_only(tokens(3, 3, 3, 7), VOCABULARY)
    assert spelled(found) == ["[SOS]", "s3", "s7", "[EOS]"]
    assert counted(found) == ["s3", "s7", "[EOS]"]
    assert found.text == "[SOS]<|s_3|><|s_7|>[EOS]"
    assert spelled(speech_only(tokens(3, 3, 3, 7), VOCABULARY, "frames"))[1:-1] == ["s3", "s3", "s3", "s7"]
    assert spelled(speech_only(tokens(3, 3, 3, 7), VOCABULARY, "durations"))[1:-1] == ["s3", "d3", "s7", "d1"]


@settings(max_examples=100)
@given(codes=CODES, form=st.sampled_from(["units", "frames", "durations"]))
def test_speech_only_is_read_back(codes, form):
    array = np.repeat(codes, 3)
    units, durations = read_speech(speech_only(tokens(*array), VOCABULARY, form).ids, VOCABULARY, form)
    if form == "units":
        np.testing.assert_array_equal(units, tokens(*array).units)
    else:
        np.testing.assert_array_equal(expand(units, durations), array)


def test_a_run_longer_than_the_longest_duration():
    found = speech_only(tokens(*[5] * 9), VOCABULARY, "durations")
    assert spelled(found)[1:-1] == ["s5", "d4", "s5", "d4", "s5", "d1"]


def test_read_speech_refuses_other_sequences():
    ids = speech_only(tokens(1, 2), VOCABULARY, "durations").ids
    for bad, form in ((ids[1:], "units"), (ids[:-1], "units"), (np.delete(ids, 1), "durations"), (ids, "units")):
        with pytest.raises(ExportError):
            read_speech(bad, VOCABULARY, form)
    with pytest.raises(ExportError, match="no duration"):
        read_speech(speech_only(tokens(1, 2), VOCABULARY).ids, VOCABULARY, "durations")


def test_recognition_and_synthesis_as_omniflatten_writes_them():
    asr = speech_to_text(tokens(1, 1, 2), "hi", VOCABULARY, encode)
    assert asr.text == "[ASR][SOS]<|s_1|><|s_2|>[EOS][SOT]hi[EOT]"
    assert spelled(asr) == ["[ASR]", "[SOS]", "s1", "s2", "[EOS]", "[SOT]", "h", "i", "[EOT]"]
    assert counted(asr) == ["h", "i", "[EOT]"]
    tts = text_to_speech(tokens(1, 1, 2), "hi", VOCABULARY, encode)
    assert tts.text == "[TTS][SOT]hi[EOT][SOS]<|s_1|><|s_2|>[EOS]"
    assert spelled(tts) == ["[TTS]", "[SOT]", "h", "i", "[EOT]", "[SOS]", "s1", "s2", "[EOS]"]
    assert counted(tts) == ["s1", "s2", "[EOS]"]
    assert (
        counted(speech_to_text(tokens(1), "hi", VOCABULARY, encode, loss="all"))
        == spelled(speech_to_text(tokens(1), "hi", VOCABULARY, encode))[1:]
    )


def test_names_are_configurable():
    names = {**SPECIALS, "asr": "<transcribe>", "begin_speech": "<speech>"}
    vocabulary = Vocabulary("t", "f", {"primary": K}, first_id=FIRST, specials=names, template="<Un{}>")
    assert speech_to_text(tokens(1), "hi", vocabulary, encode).text == "<transcribe><speech><Un1>[EOS][SOT]hi[EOT]"


def test_text_that_would_be_speech_is_refused():
    with pytest.raises(ExportError, match="name of a speech token"):
        speech_to_text(tokens(1), "x", VOCABULARY, lambda text: [FIRST + 3])
    for text in ("", "  "):
        with pytest.raises(ExportError, match="without text"):
            text_to_speech(tokens(1), text, VOCABULARY, encode)


WORDS = [Word(f"w{i}", i * 0.1, i * 0.1 + 0.08) for i in range(40)]


@pytest.mark.parametrize("seed", range(8))
def test_interleaving_covers_every_word_once(seed):
    codes = np.arange(200) // 4 % K
    found = interleave(
        Tokens(codes, K), WORDS, VOCABULARY, encode, np.random.default_rng(seed), text_words=(2, 4), speech_words=(1, 3)
    )
    marks = spelled(found)
    assert counted(found) == marks[1:]
    spans, word = [], 0
    for mark in marks:
        if mark in ("[Text]", "[Speech]"):
            spans.append((mark, []))
        else:
            spans[-1][1].append(mark)
    assert all(a[0] != b[0] for a, b in pairwise(spans))
    for number, (kind, body) in enumerate(spans):
        fewest, most = (2, 4) if kind == "[Text]" else (1, 3)
        if kind == "[Text]":
            said = "".join(body).split(" ")
            assert said == [f"w{word + i}" for i in range(len(said))]
            count = len(said)
        else:
            # 0.1 s a word is 5 frames; a span ends with its last word, 4 frames long.
            count = next(n for n in range(1, 5) if runs_of(codes, word, n) == body)
        assert fewest <= count <= most or number == len(spans) - 1
        word += count
    assert word == len(WORDS)


def runs_of(codes, word, count):
    part = codes[word * 5 : (word + count - 1) * 5 + 4]
    return [f"s{code}" for i, code in enumerate(part) if i == 0 or part[i - 1] != code]


def test_interleaving_is_seeded_and_begins_with_either():
    def run(seed):
        return interleave(Tokens(np.arange(200) % K, K), WORDS, VOCABULARY, encode, np.random.default_rng(seed))

    np.testing.assert_array_equal(run(3).ids, run(3).ids)
    assert {spelled(run(seed))[0] for seed in range(10)} == {"[Text]", "[Speech]"}


def test_interleaving_refuses_bad_alignments():
    cases = {
        "has no alignment": [],
        "starts before the previous one": [Word("b", 1.0, 1.1), Word("a", 0.5, 0.6)],
        "ends at 9.00 s, after the 4.00 s of tokens": [Word("a", 0.5, 9.0)],
    }
    for message, words in cases.items():
        with pytest.raises(ExportError, match=message):
            interleave(Tokens(np.arange(200) % K, K), words, VOCABULARY, encode, np.random.default_rng(0))


def test_half_duplex_turn_by_turn():
    turns = [Turn("user", tokens(1, 2), "ab"), Turn("assistant", tokens(3, 4), "cd")]
    found = half_duplex(turns, VOCABULARY, encode)
    assert found.text == ("[SOS]<|s_1|><|s_2|>[EOS][SOT]ab[EOT][SOT]cd[EOT][SOS]<|s_3|><|s_4|>[EOS]")
    assert counted(found) == spelled(found)[4:]
    with pytest.raises(ExportError, match="without text"):
        half_duplex([Turn("user", tokens(1), "")], VOCABULARY, encode)
    with pytest.raises(ExportError, match="at least one turn"):
        half_duplex([], VOCABULARY, encode)


def test_full_duplex_two_streams():
    user, ours = tokens(1, 2, 3, 4, 5), tokens(6, 7, 8)
    found = full_duplex([user, ours], VOCABULARY, speech_chunk=2)
    assert spelled(found) == [
        *("s1", "s2", "s6", "s7"),
        *("s3", "s4", "s8", "[SIL]"),
        *("s5", "[SIL]", "[SIL]", "[SIL]"),
    ]
    assert counted(found) == ["s6", "s7", "s8", "[SIL]", "[SIL]", "[SIL]"]
    everything = full_duplex([user, ours], VOCABULARY, speech_chunk=2, user_loss=True)
    assert counted(everything) == spelled(found)[1:]


def test_full_duplex_three_streams():
    user, ours = Tokens(np.full(12, 1), K), Tokens(np.full(12, 2), K)
    # At 50 frames a second, 0.1 s is frame 5, in the second chunk of 4 frames.
    text = [Word("abc", 0.1, 0.2)]
    found = full_duplex([user, ours], VOCABULARY, text, encode, speech_chunk=4, text_chunk=2)
    u, s = ["s1"] * 4, ["s2"] * 4
    assert spelled(found) == [*u, "[NOTEXT]", "[NOTEXT]", *s, *u, "a", "b", *s, *u, "c", "[NOTEXT]", *s]
    assert counted(found) == ["[NOTEXT]", "[NOTEXT]", *s, "a", "b", *s, "c", "[NOTEXT]", *s]
    spoken, said = "<|s_1|>" * 4, "<|s_2|>" * 4
    assert found.text == f"{spoken}[NOTEXT][NOTEXT]{said}{spoken}abc{said}{spoken}[NOTEXT]{said}"


def test_full_duplex_default_chunks_are_2_text_to_10_speech():
    user, ours = Tokens(np.full(10, 1), K), Tokens(np.full(10, 2), K)
    found = full_duplex([user, ours], VOCABULARY, [Word("ab", 0.0, 0.1)], encode)
    assert spelled(found) == ["s1"] * 10 + ["a", "b"] + ["s2"] * 10


def test_text_that_outlasts_the_speech_adds_silence():
    found = full_duplex([tokens(1), tokens(2)], VOCABULARY, [Word("abcde", 0.0, 0.1)], encode, speech_chunk=1)
    silence = ["[SIL]"]
    assert spelled(found) == ["s1", "a", "b", "s2", *silence, "c", "d", *silence, *silence, "e", "[NOTEXT]", *silence]


@settings(max_examples=60, deadline=None)
@given(
    user=CODES,
    ours=CODES,
    speech_chunk=st.integers(1, 12),
    text_chunk=st.integers(1, 4),
    starts=st.lists(st.integers(0, 70), max_size=4),
)
def test_full_duplex_loses_nothing(user, ours, speech_chunk, text_chunk, starts):
    text = [Word("xyz", start / 50, start / 50) for start in sorted(starts)]
    found = full_duplex(
        [tokens(*user), tokens(*ours)], VOCABULARY, text, encode, speech_chunk=speech_chunk, text_chunk=text_chunk
    )
    rows = found.ids.reshape(-1, 2 * speech_chunk + text_chunk)
    silent, nothing = VOCABULARY.special("silent_speech"), VOCABULARY.special("silent_text")
    for stream, codes in ((rows[:, :speech_chunk], user), (rows[:, speech_chunk + text_chunk :], ours)):
        flat = stream.ravel()
        assert flat[: len(codes)].tolist() == [FIRST + code for code in codes]
        assert (flat[len(codes) :] == silent).all()
    written = rows[:, speech_chunk : speech_chunk + text_chunk].ravel()
    assert "".join(map(chr, written[written != nothing])) == "xyz" * len(text)
    assert found.text.count("xyz") == len(text)


def test_silence_is_marked_and_capped():
    user, ours = tokens(0, 0, 0, 0, 0, 0, 5, 0), tokens(7, 0, 0, 0, 0, 0, 0, 0)
    masks = [silent_frames(channel, [0], shortest=2) for channel in (user, ours)]
    assert masks[0].tolist() == [True] * 6 + [False, False]
    assert masks[1].tolist() == [False] + [True] * 7
    assert cap_silence(masks, 2).tolist() == [True, True, True, False, False, False, True, True]
    found = full_duplex([user, ours], VOCABULARY, silent=masks, cap=2, speech_chunk=5)
    assert spelled(found) == ["[SIL]", "[SIL]", "[SIL]", "s5", "s0", "s7", "[SIL]", "[SIL]", "[SIL]", "[SIL]"]


def test_capping_moves_the_text_with_the_speech():
    silent = np.zeros(20, dtype=bool)
    silent[:10] = True
    channels = [Tokens(np.full(20, 1), K)] * 2
    # Frame 10, which the cap of 2 makes frame 2, in the second chunk of 2.
    found = full_duplex(
        channels,
        VOCABULARY,
        [Word("a", 0.2, 0.3)],
        encode,
        silent=[silent, silent],
        cap=2,
        speech_chunk=2,
        text_chunk=1,
    )
    assert spelled(found)[:10] == ["[SIL]", "[SIL]", "[NOTEXT]", "[SIL]", "[SIL]", "s1", "s1", "a", "s1", "s1"]
    assert len(found) == 5 * 12 // 2


@settings(max_examples=100)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60), st.integers(1, 5))
def test_cap_silence_against_a_loop(frames, cap):
    masks = [np.array([f[channel] for f in frames], dtype=bool) for channel in (0, 1)]
    expected, run = [], 0
    for both in (a and b for a, b in frames):
        run = run + 1 if both else 0
        expected.append(run <= cap)
    assert cap_silence(masks, cap).tolist() == expected


def test_dialogue_refuses_bad_input():
    one = tokens(1, 2)
    cases = [
        (lambda: full_duplex([one], VOCABULARY), "two channels, one of the user and one of the assistant; got 1"),
        (lambda: full_duplex([one] * 3, VOCABULARY), "got 3"),
        (lambda: full_duplex([one, one], VOCABULARY, [Word("a", 0, 0)]), "needs encode_text"),
        (lambda: full_duplex([one, one], VOCABULARY, speech_chunk=0), "at least 1"),
        (lambda: full_duplex([one, one], VOCABULARY, silent=[np.zeros(3, bool)] * 2), "2 booleans"),
        (lambda: full_duplex([tokens(), tokens()], VOCABULARY), "without tokens"),
        (
            lambda: full_duplex([one, one], VOCABULARY, [Word("b", 2, 2), Word("a", 1, 1)], encode),
            "starts before the previous one",
        ),
        (lambda: speech_only(tokens(), VOCABULARY), "without tokens"),
    ]
    for run, message in cases:
        with pytest.raises(ExportError, match=message):
            run()


@settings(max_examples=50)
@given(count=st.integers(1, 4), frames=st.integers(0, 9))
def test_delay_is_invertible(count, frames):
    ids = np.arange(count * frames, dtype=np.int32).reshape(count, frames)
    delayed = delay(ids, -1)
    assert delayed.shape == (count, frames + count - 1)
    np.testing.assert_array_equal(undelay(delayed), ids)
    for c in range(count):
        for t in range(frames):
            assert delayed[c, t + c] == ids[c, t]


@pytest.mark.parametrize("pattern", ["flat", "delayed"])
def test_both_codebooks(pattern):
    both = {"primary": tokens(1, 2, 3), "auxiliary": Tokens(np.array([60, 61, 62]), 70)}
    found = all_codebooks(both, VOCABULARY, pattern)
    assert read_codebooks(found.ids, VOCABULARY, pattern) == both
    expected = {
        "flat": ["[SOS]", "s1", "a60", "s2", "a61", "s3", "a62", "[EOS]"],
        "delayed": ["[SOS]", "s1", "[DELAY]", "s2", "a60", "s3", "a61", "[DELAY]", "a62", "[EOS]"],
    }
    assert spelled(found) == expected[pattern]


def test_codebooks_refuse_bad_input():
    one = tokens(1, 2)
    with pytest.raises(ExportError, match="--codebook all"):
        all_codebooks({"primary": one}, VOCABULARY)
    with pytest.raises(ExportError, match="the same number of frames"):
        all_codebooks({"primary": one, "auxiliary": Tokens(np.array([1]), 70)}, VOCABULARY)
    with pytest.raises(ExportError, match="whole steps"):
        read_codebooks(np.arange(5), VOCABULARY)


def documents(lengths):
    rng = np.random.default_rng(0)
    return [TokenSequence(rng.integers(1, 99, n).astype(np.int32), rng.random(n) < 0.7) for n in lengths]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), max_size=12), st.integers(2, 20))
def test_packing_loses_nothing(lengths, length):
    docs = documents(lengths)
    windows = list(pack(docs, length, pad=0))
    ids = np.concatenate([w.ids for w in windows]) if windows else np.array([])
    np.testing.assert_array_equal(ids[: sum(lengths)], np.concatenate([d.ids for d in docs]) if docs else [])
    assert (ids[sum(lengths) :] == 0).all()
    assert len(windows) == -(-sum(lengths) // length)
    for window in windows:
        assert {len(a) for a in (window.ids, window.loss_mask, window.positions, window.documents)} == {length}
        starts = np.flatnonzero(np.diff(window.documents, prepend=-2))
        np.testing.assert_array_equal(window.positions[starts], 0)
        assert (np.diff(window.positions)[np.diff(window.documents) == 0] == 1).all()
        assert not window.loss_mask[window.documents < 0].any()
        np.testing.assert_array_equal(window.labels, np.where(window.loss_mask, window.ids, -100))


def test_packing_keeps_masks_but_at_the_cut():
    doc = TokenSequence(np.arange(1, 6, dtype=np.int32), np.array([False, True, True, True, True]))
    windows = list(pack([doc, doc], 3, pad=0))
    # The first id of a document, and of the part of one that goes on in a window, does not count; nor does padding.
    assert [w.loss_mask.tolist() for w in windows] == [
        [False, True, True],
        [False, True, False],
        [False, True, True],
        [False, False, False],
    ]


def test_packing_whole_documents():
    windows = list(pack(documents([4, 3, 5, 1]), 8, pad=0, cut=False))
    assert [w.documents.tolist() for w in windows] == [
        [0, 0, 0, 0, 1, 1, 1, -1],
        [0, 0, 0, 0, 0, 1, -1, -1],
    ]
    with pytest.raises(ExportError, match="9 ids does not fit in a window of 8"):
        list(pack(documents([9]), 8, pad=0, cut=False))
    with pytest.raises(ExportError, match="at least 2 ids"):
        list(pack(documents([9]), 1, pad=0))


def test_shuffling_by_seed():
    assert sorted(shuffled(100, 0).tolist()) == list(range(100))
    assert shuffled(100, 0).tolist() == shuffled(100, 0).tolist() != shuffled(100, 1).tolist()


def test_private_use_characters_are_distinct_and_private():
    characters = [private_use_character(n) for n in range(137_468)]
    assert len(set(characters)) == len(characters)
    assert all(0xE000 <= ord(c) <= 0xF8FF or ord(c) >= 0xF0000 for c in characters)
    with pytest.raises(ExportError):
        private_use_character(137_468)


def test_vocabulary_saved_and_checked(tmp_path):
    VOCABULARY.save(tmp_path / "vocabulary.spintok.json")
    assert Vocabulary.load(tmp_path) == VOCABULARY
    VOCABULARY.check("f")
    with pytest.raises(ExportError, match="another tokenizer"):
        VOCABULARY.check("e")
    with pytest.raises(ExportError, match="in a vocabulary of 50"):
        VOCABULARY.ids([50])
    with pytest.raises(ExportError, match="no such file"):
        Vocabulary.load(tmp_path / "nowhere")
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    with pytest.raises(ExportError, match="not a vocabulary"):
        Vocabulary.load(tmp_path / "bad.json")
