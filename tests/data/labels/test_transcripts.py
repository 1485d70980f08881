"""Texts by key: every form in which people have them, and what is refused."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spintok.data.labels.transcripts import TranscriptError, Transcripts, manifest_texts
from spintok.data.manifest import ManifestError, read_manifest


@given(st.dictionaries(st.text(min_size=1), st.text(), min_size=1, max_size=5))
def test_texts_come_back_by_key(tmp_path_factory, texts) -> None:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("".join(json.dumps({"id": k, "text": t}, ensure_ascii=False) + "\n" for k, t in texts.items()))
    found = Transcripts(path)
    assert found == texts
    assert {key: found.text(key) for key in texts} == texts
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.jsonl", '{"id": "a", "path": "a.wav", "text": "one two"}\n{"id": "b", "path": "b.wav"}\n'),
        ("m.json", '\n{"utt": "a", "text": "one two"}\r\n'),
        ("lines.txt", '{"key": "a", "text": "one two"}'),
        ("text", "a one two\n\n"),
    ],
)
def test_json_lines_and_kaldi(tmp_path, name, content) -> None:
    (tmp_path / name).write_text(content)
    assert Transcripts(tmp_path / name) == {"a": "one two"}


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "x", "key": "y"},
        {"key": "x", "utt": "y"},
        {"utt_id": "x"},
        {"id": None, "key": "x"},
        {"id": 7},
        {},
        {"audio_filepath": "other.wav"},
    ],
)
def test_manifest_and_transcripts_agree_on_the_key(tmp_path, fields) -> None:
    (tmp_path / "m.jsonl").write_text(json.dumps({"path": "dir/a.wav", "text": "hello", **fields}))
    (utterance,) = read_manifest(tmp_path / "m.jsonl")
    assert Transcripts(tmp_path / "m.jsonl") == {utterance.key: "hello"}


def test_other_line_separators_of_unicode_are_part_of_the_text(tmp_path) -> None:
    record = {"id": "a\u2028b", "path": "a\u0085.wav", "text": "one\u2029two"}
    (tmp_path / "m.jsonl").write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
    assert Transcripts(tmp_path / "m.jsonl") == {"a\u2028b": "one\u2029two"}
    (utterance,) = read_manifest(tmp_path / "m.jsonl")
    assert (utterance.key, utterance.path.name) == ("a\u2028b", "a\u0085.wav")


NESTED = '{"id": ' + "[" * 100_000 + "]" * 100_000 + "}"
HUGE = '{"id": ' + "9" * 5000 + ', "path": "a", "text": "a"}'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.jsonl", b"{", r"m\.jsonl:1: not a JSON object"),
        ("m.jsonl", b'{"id": "a", "text": "b"}\n[]', r"m\.jsonl:2: not a JSON object"),
        ("m.jsonl", b'{"id": "a"}', "no transcripts; a line of JSON needs the fields id and text"),
        ("m.jsonl", b'{"text": "b"}', "1: expected a JSON object with an id and a text"),
        ("m.jsonl", b'{"id": "a", "text": 1}', "1: expected a JSON object with an id and a text"),
        ("m.jsonl", b'{"key": "a", "text": "x"}\n{"key": "a", "text": "y"}', "2: a second text for the key 'a'"),
        ("text", b"a one\na two\n", "2: a second text for the key 'a'"),
        ("m.jsonl", NESTED.encode(), "1: not a JSON object"),
        ("m.jsonl", HUGE.encode(), "1: not a JSON object"),
        ("text", b"\xff\xfe", "not a text file in UTF-8"),
        ("none", None, "none: no such file"),
    ],
)
def test_transcripts_that_cannot_be_used(tmp_path, name, content, message) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TranscriptError, match=message) as caught:
        Transcripts(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", [NESTED, HUGE])
def test_hostile_json_in_a_manifest_is_one_line(tmp_path, line) -> None:
    (tmp_path / "m.jsonl").write_text(line)
    with pytest.raises(ManifestError, match="1: not a JSON object"):
        read_manifest(tmp_path / "m.jsonl")


def test_a_missing_text_is_named(tmp_path) -> None:
    (tmp_path / "text").write_text("a one\n")
    with pytest.raises(TranscriptError, match="text: no text for the utterance 'b'"):
        Transcripts(tmp_path / "text").text("b")


def test_texts_of_a_manifest(tmp_path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"path": "sub/a.wav", "text": "one"}\n{"id": "b", "path": "b.wav"}\n', encoding="utf-8")
    assert manifest_texts(path) == {"sub/a": "one"}
    path.write_text('{"id": "b", "path": "b.wav"}\n', encoding="utf-8")
    assert manifest_texts(path) == {}
    path.write_text('{"id": "b", "path": "b.wav", "text": 3}\n', encoding="utf-8")
    with pytest.raises(TranscriptError, match=r"m\.jsonl:1: expected"):
        manifest_texts(path)
