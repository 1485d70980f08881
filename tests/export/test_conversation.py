"""Interleaved and two-channel data as packed exports, and as they are typed."""

import json

import numpy as np
import pytest

from spintok.augment.random import utterance_rng
from spintok.corpus.token_formats import Record
from spintok.export import (
    Dialogue,
    ExportError,
    IndexedDataset,
    Packing,
    Vocabulary,
    Windows,
    export_dialogue,
    export_interleaved,
    interleave,
    read_dialogues,
    read_words,
)
from spintok.export.sequences.speech_text import Word
from spintok.export.sidecar import read_sidecar
from spintok.tokens import Tokens
from tests.export.test_hf_tokenizer import make_base
from tests.export.token_folders import runs, write_folder

K = 100
VOCABULARY = Vocabulary("random", "f" * 64, {"primary": K}, first_id=300)


def encode(text):
    return [ord(letter) for letter in text]


def utterance(key, seed, seconds=8.0):
    """An utterance of ``seconds`` with a word in each 0.25 s, its last word ending before the tokens do."""
    frames = round(seconds * 50)
    codes = runs(np.random.default_rng(seed), K, frames)
    words = [Word(f"w{i}", i / 4, i / 4 + 0.2) for i in range(int(seconds * 4) - 1)]
    return Record(key, f"/data/{key}.wav", {"primary": Tokens(codes, K, frames * 320 + 80)}, f"s{seed % 3}"), words


@pytest.fixture
def corpus(tmp_path):
    pairs = [utterance(f"dir/u{i}", i) for i in range(12)]
    records = [record for record, _ in pairs]
    return write_folder(tmp_path / "tokens", records), records, {r.key: words for r, words in pairs}


def write_words(path, words):
    lines = [
        json.dumps({"id": key, "words": [[w.text, w.start, w.end] for w in found] + [["SIL", 90, 91]]})
        for key, found in words.items()
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def export(corpus, output, words=None, **options):
    folder, _, all_words = corpus
    given = {"vocabulary": VOCABULARY, "encode_text": encode, "text_words": (2, 4), "speech_words": (1, 3)}
    return export_interleaved([folder], output, words=words or all_words, **(given | options))


def test_each_document_is_the_function_with_the_generator_of_its_utterance(corpus, tmp_path):
    summary = export(corpus, tmp_path / "out", seed=7)
    documents, losses = IndexedDataset(tmp_path / "out/tokens"), IndexedDataset(tmp_path / "out/tokens.loss")
    lines = IndexedDataset(tmp_path / "out/tokens.utterances")
    for found, loss, line, record in zip(documents, losses, lines, corpus[1], strict=True):
        expected = interleave(
            record.tokens["primary"],
            corpus[2][record.key],
            VOCABULARY,
            encode,
            utterance_rng(7, 0, record.key),
            text_words=(2, 4),
            speech_words=(1, 3),
        )
        np.testing.assert_array_equal(found, expected.ids)
        np.testing.assert_array_equal(loss, expected.loss_mask)
        assert json.loads(line.tobytes())["key"] == record.key
    assert (summary.utterances, summary.tokens) == (12, sum(map(len, documents)))
    # An utterance gets the same spans in any company.
    alone = write_folder(tmp_path / "alone", corpus[1][5:6])
    export((alone, None, corpus[2]), tmp_path / "one", seed=7)
    np.testing.assert_array_equal(IndexedDataset(tmp_path / "one/tokens")[0], documents[5])
    with pytest.raises(ExportError, match="other options"):
        export(corpus, tmp_path / "out", seed=8)


def test_windows_shuffling_and_the_split(corpus, tmp_path):
    packing = Packing(window=64, shuffle=1, split_by="speaker", validation=0.5)
    export(corpus, tmp_path / "out", packing=packing)
    windows = [Windows(tmp_path / f"out/{part}") for part in ("train", "validation")]
    assert {item["input_ids"].shape for part in windows for item in (part[i] for i in range(len(part)))} == {(64,)}
    assert read_sidecar(tmp_path / "out")["target"] == "interleaved"


def test_utterances_without_words_and_bad_vocabularies_are_refused(corpus, tmp_path):
    fewer = dict(list(corpus[2].items())[:-1])
    cases = {
        r"'dir/u11': has no words; the words have keys such as 'dir/u0'": {"words": fewer},
        "another tokenizer": {"vocabulary": Vocabulary("x", "e" * 64, {"primary": K})},
        "at least 1 word": {"text_words": (0, 3)},
        "no duration tokens": {"form": "durations"},
    }
    for message, options in cases.items():
        with pytest.raises(ExportError, match=message):
            export(corpus, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()


def oracle(user, ours, text, speech_chunk, text_chunk):
    """Three streams from their definition, frame by frame and id by id."""
    silence, nothing = VOCABULARY.special("silent_speech"), VOCABULARY.special("silent_text")
    length = max(len(user), len(ours))
    chunks = -(-length // speech_chunk)
    waiting, found = list(text), []
    for chunk in range(chunks):
        frames = range(chunk * speech_chunk, (chunk + 1) * speech_chunk)
        found += [300 + user[t] if t < len(user) else silence for t in frames]
        spoken = []
        while waiting and waiting[0][0] < (chunk + 1) * speech_chunk and len(spoken) < text_chunk:
            spoken.append(waiting.pop(0)[1])
        found += spoken + [nothing] * (text_chunk - len(spoken))
        found += [300 + ours[t] if t < len(ours) else silence for t in frames]
    assert not waiting
    return found


def test_dialogues_against_an_oracle(corpus, tmp_path):
    folder, records, words = corpus
    dialogues = [Dialogue(f"call{i}", records[2 * i].key, records[2 * i + 1].key) for i in range(5)][::-1]
    options = {"vocabulary": VOCABULARY, "words": words, "encode_text": encode, "speech_chunk": 25, "text_chunk": 12}
    summary = export_dialogue([folder], tmp_path / "out", dialogues, **options)
    assert summary.utterances == 5
    documents, losses = IndexedDataset(tmp_path / "out/tokens"), IndexedDataset(tmp_path / "out/tokens.loss")
    tokens = {record.key: record.tokens["primary"].codes.tolist() for record in records}
    for found, loss, dialogue in zip(documents, losses, dialogues, strict=True):
        # Word i starts at i / 4 s, which is frame 12.5 i: rounded down.
        text = [(int(word.start * 50), ord(c)) for word in words[dialogue.assistant] for c in word.text]
        assert found.tolist() == oracle(tokens[dialogue.user], tokens[dialogue.assistant], text, 25, 12)
        chunk = [False] * 25 + [True] * 37
        assert loss.tolist() == [False, *(chunk * (len(found) // 62))[1:]]


def test_a_start_that_floating_point_puts_before_its_frame(tmp_path):
    """0.58 s * 50 is 28.999999999999996, and frame 29 is the first of its chunk."""
    record, _ = utterance("u", 0, 2.0)
    folder = write_folder(tmp_path / "tokens", [record, Record("v", "/v", record.tokens, None)])
    words = {"v": [Word("a", 0.58, 0.7)]}
    options = {"vocabulary": VOCABULARY, "words": words, "encode_text": encode, "speech_chunk": 29, "text_chunk": 1}
    export_dialogue([folder], tmp_path / "out", [Dialogue("d", "u", "v")], **options)
    rows = IndexedDataset(tmp_path / "out/tokens")[0].reshape(-1, 59)
    assert rows[:, 29].tolist() == [
        VOCABULARY.special("silent_text"),
        ord("a"),
        *[VOCABULARY.special("silent_text")] * 2,
    ]


def test_dialogues_without_text_with_silence(corpus, tmp_path):
    folder, records, _ = corpus
    code = int(records[0].tokens["primary"].codes[0])
    dialogues = [Dialogue("a", records[0].key, records[1].key)]
    export_dialogue([folder], tmp_path / "out", dialogues, silent_codes=[code], cap=10, user_loss=True)
    vocabulary = Vocabulary.load(tmp_path / "out")
    found = IndexedDataset(tmp_path / "out/tokens")[0]
    assert (vocabulary.first_id, found.size % 20) == (0, 0)
    assert set(found.tolist()) <= {*range(K), vocabulary.special("silent_speech")}
    assert IndexedDataset(tmp_path / "out/tokens.loss")[0].tolist() == [0, *[1] * (found.size - 1)]


def test_dialogues_that_cannot_be_made(corpus, tmp_path):
    folder, records, words = corpus
    good = [Dialogue("a", records[0].key, records[1].key)]
    text = {"vocabulary": VOCABULARY, "encode_text": encode}
    cases = {
        "dialogue 'a': the token folders have no tokens of 'nobody'": ([Dialogue("a", "nobody", "x")], {}),
        "dialogue 'a': 'dir/u1' has no words": (good, {**text, "words": {"dir/u0": words["dir/u0"]}}),
        "needs the vocabulary": (good, {"words": words}),
        "split by file": (good, {"packing": Packing(split_by="speaker")}),
    }
    for message, (dialogues, options) in cases.items():
        with pytest.raises(ExportError, match=message):
            export_dialogue([folder], tmp_path / "out", dialogues, **options)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("", "there are no dialogues"),
        ('{"id": "a", "user": "u"}', "d.jsonl:1: expected the fields id, user and assistant"),
        ('{"id": "a", "user": "u", "assistant": "v"}\n' * 2, "two dialogues have one id"),
        ("[" * 100_000, "d.jsonl:1: not a JSON object"),
    ],
)
def test_files_of_dialogues(tmp_path, content, message):
    path = tmp_path / "d.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ExportError, match=message):
        read_dialogues(path)
    path.write_text('{"id": "a", "user": "u", "assistant": "v"}\n')
    assert read_dialogues(path) == [("a", "u", "v")]


def test_words_without_silence(tmp_path):
    write_words(tmp_path / "w.jsonl", {"a": [Word("hello", 0.1, 0.4)]})
    assert read_words(tmp_path / "w.jsonl") == {"a": [Word("hello", 0.1, 0.4)]}
    (tmp_path / "p.jsonl").write_text('{"id": "a", "phones": [["HH", 0, 1]]}\n')
    with pytest.raises(ExportError, match="has alignments, but none of words"):
        read_words(tmp_path / "p.jsonl")


def test_from_the_command_line(run, corpus, tmp_path):
    folder, records, words = corpus
    make_base("byte-level").save_pretrained(tmp_path / "base")
    assert run(folder, tmp_path / "lm", "--to", "hf-tokenizer", "--base", tmp_path / "base")[0] == 0
    write_words(tmp_path / "words.jsonl", words)
    text = ("--vocabulary", tmp_path / "lm", "--words", tmp_path / "words.jsonl")
    options = (*text, "--text-words", 2, 4, "--speech-words", 1, 3, "--seed", 3, "-q")
    assert run(folder, tmp_path / "i", "--to", "interleaved", *options) == (0, "", "")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "lm")
    vocabulary = Vocabulary.load(tmp_path / "lm")
    for found, record in zip(IndexedDataset(tmp_path / "i/tokens"), records, strict=True):
        rng = utterance_rng(3, 0, record.key)
        spans = {"text_words": (2, 4), "speech_words": (1, 3)}
        expected = interleave(
            record.tokens["primary"], words[record.key], vocabulary, lambda t: tokenizer(t).input_ids, rng, **spans
        )
        assert tokenizer.decode(found.tolist()) == expected.text
    line = json.dumps({"id": "call", "user": records[0].key, "assistant": records[1].key})
    (tmp_path / "calls.jsonl").write_text(line)
    options = (*text, "--dialogues", tmp_path / "calls.jsonl", "--speech-chunk", 25, "--text-chunk", 30, "--user-loss")
    code, out, err = run(folder, tmp_path / "d", "--to", "dialogue", *options, "--silent-code", 3, "--cap", 50)
    assert (code, err) == (0, "")
    assert "dialogue, 1 utterances" in out
    assert IndexedDataset(tmp_path / "d/tokens")[0].size % 80 == 0
    for arguments, message in (
        (("--to", "interleaved", "--words", tmp_path / "words.jsonl"), "--to interleaved needs --words FILE, and"),
        (("--to", "dialogue"), "--to dialogue needs --dialogues FILE"),
        (("--to", "dialogue", "--dialogues", tmp_path / "calls.jsonl", *text[2:]), "--words needs --vocabulary"),
        (("--to", "packed", "--words", tmp_path / "words.jsonl"), "--words is for --to interleaved or dialogue"),
        (("--to", "dialogue", "--task", "asr"), "--task is for --to packed, not for dialogue"),
    ):
        code, _, err = run(folder, tmp_path / "bad", *arguments)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
        assert not (tmp_path / "bad").exists()
