import json

import pytest

from spintok.data.manifest import ManifestError, Utterance, read_manifest, scan


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_a_folder_is_searched_at_any_depth_in_a_fixed_order(tmp_path) -> None:
    touch(tmp_path, "b/2.flac", "b/10.wav", "a.MP3", "notes.txt", ".hidden.wav", "b/.git/x.wav", "c d/é ü.opus")
    found = scan(tmp_path)
    assert [u.key for u in found] == ["a", "b/10", "b/2", "c d/é ü"]
    assert [u.path.name for u in found] == ["a.MP3", "10.wav", "2.flac", "é ü.opus"]


def test_keys_keep_names_that_strip_badly_or_would_clash(tmp_path) -> None:
    touch(tmp_path, "calf_call.flac", "v1.5.wav", "same.wav", "same.flac")
    assert [u.key for u in scan(tmp_path)] == ["calf_call", "same.flac", "same.wav", "v1.5"]


def test_links_are_followed_and_circles_end(tmp_path) -> None:
    touch(tmp_path / "elsewhere", "x.wav")
    touch(tmp_path / "in", "a.wav")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in")
    assert [u.key for u in scan(tmp_path / "in")] == ["a", "link/x"]


def test_fairseq(tmp_path) -> None:
    (tmp_path / "train.tsv").write_text("audio\nb/x.flac\t16000\na.flac\t8000\n")
    assert scan(tmp_path / "train.tsv") == [
        Utterance("b/x", tmp_path / "audio/b/x.flac"),
        Utterance("a", tmp_path / "audio/a.flac"),
    ]


def test_kaldi(tmp_path) -> None:
    (tmp_path / "wav.scp").write_text("u2 one two.wav\nu1 /abs/b.wav\n")
    (tmp_path / "utt2spk").write_text("u1 ann\n")
    first, second = scan(tmp_path / "wav.scp")
    assert first == Utterance("u2", tmp_path / "one two.wav")
    assert (second.key, str(second.path), second.speaker) == ("u1", "/abs/b.wav", "ann")


@pytest.mark.parametrize("field", ["path", "audio_filepath", "file_name"])
def test_json_lines(tmp_path, field) -> None:
    rows = [{"id": "u1", field: "x/a.wav", "speaker": 7, "duration": 1.5}, {field: "x/b.wav"}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert scan(tmp_path / "m.jsonl") == [
        Utterance("u1", tmp_path / "x/a.wav", "7"),
        Utterance("x/b", tmp_path / "x/b.wav"),
    ]


def test_a_single_file(tmp_path) -> None:
    touch(tmp_path, "a.wav")
    assert scan(tmp_path / "a.wav") == [Utterance("a", tmp_path / "a.wav")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.jsonl", '{"path": "a.wav"}\nnot json\n', r"m\.jsonl:2: not a JSON"),
        ("m.jsonl", '{"duration": 1}\n', r"m\.jsonl:1: no path"),
        ("m.jsonl", "[1]\n", r"m\.jsonl:1: not a JSON object"),
        ("m.jsonl", "", "lists no utterances"),
        ("m.jsonl", '{"id": 1, "path": "a.wav"}\n{"id": 1, "path": "b.wav"}\n', "must be unique"),
        ("wav.scp", "u1\n", r"wav\.scp:1: expected 'KEY PATH'"),
        ("wav.scp", "u1 sox a.wav -t wav - |\n", "does not run commands"),
        ("m.tsv", "root\n", "lists no utterances"),
    ],
)
def test_bad_manifests_are_named_with_the_line(tmp_path, name, text, message) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ManifestError, match=message):
        scan(tmp_path / name)


def test_other_bad_sources(tmp_path) -> None:
    with pytest.raises(ManifestError, match="no audio files"):
        scan(tmp_path)
    with pytest.raises(ManifestError, match="no such file or folder"):
        scan(tmp_path / "no")
    (tmp_path / "m.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="UTF-8"):
        scan(tmp_path / "m.jsonl")
    with pytest.raises(ManifestError, match="a manifest is"):
        (tmp_path / "m.csv").write_text("a,b\n")
        read_manifest(tmp_path / "m.csv")
