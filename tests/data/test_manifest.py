import json
import os

import numpy as np
import pytest
import soundfile

from spintok.data.audio import AudioError, read
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


def test_keys_are_unique_whatever_the_extensions(tmp_path) -> None:
    touch(tmp_path, "x.flac", "x.wav", "x.wav.wav", "y.wav", "y.wav.flac", "z")
    assert [u.key for u in scan(tmp_path)] == ["x.flac", "x.wav", "x.wav.wav", "y", "y.wav.flac"]


def test_video_and_other_audio_is_listed_too(tmp_path) -> None:
    names = ["a.m4a", "b.MP4", "c.webm", "d.aac", "e.wma", "f.mkv", "g.amr", "h.aifc", "i.snd", "j.mp2"]
    touch(tmp_path, *names, "k.txt", "l.jpg")
    assert [u.path.name for u in scan(tmp_path)] == names


def test_a_folder_that_cannot_be_read_is_listed_with_the_cause(tmp_path, monkeypatch) -> None:
    touch(tmp_path, "a.wav", "v1.5/b.wav")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("v1.5"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = scan(tmp_path)
    assert found == [Utterance("a", tmp_path / "a.wav"), Utterance("v1.5/", tmp_path / "v1.5")]
    with pytest.raises(AudioError, match="v1.5: Permission denied"):
        read(found[1].path)
    with pytest.raises(ManifestError, match="v1.5: Permission denied"):
        scan(tmp_path / "v1.5")


def test_names_that_are_not_utf8_are_read_and_get_a_key_that_is(tmp_path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    soundfile.write(path, np.zeros(999), 16_000)
    (found,) = scan(tmp_path)
    assert found.key == "caf\\udce9"
    assert len(read(found.path)) == 999


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
        Utterance("u1", tmp_path / "x/a.wav", "7", seconds=1.5),
        Utterance("x/b", tmp_path / "x/b.wav"),
    ]


def test_lines_of_a_token_folder_state_samples_and_null_states_nothing(tmp_path) -> None:
    """Their ``duration`` is the lengths of runs."""
    rows = [{"path": "a.wav", "duration": [2, 1], "num_samples": 8000}, {"path": "b.wav", "duration": None}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [utterance.seconds for utterance in scan(tmp_path / "m.jsonl")] == [0.5, None]


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
        ("m.jsonl", '{"id": 1, "path": "a.wav"}\n{"id": 1, "path": "b.wav"}\n', "lines 1 and 2 have the same key '1'"),
        ("wav.scp", "u1\n", r"wav\.scp:1: expected 'KEY PATH'"),
        ("wav.scp", "u1 sox a.wav -t wav - |\n", "does not run commands"),
        ("m.tsv", "root\n", "lists no utterances"),
        ("m.tsv", "root\na.wav\t1\nb.wav\t1\na.wav\t1\n", "lines 2 and 4 have the same key 'a.wav'"),
        ("wav.scp", "u1 a.wav\n\nu1 b.wav\n", "lines 1 and 3 have the same key 'u1'"),
        ("m.jsonl", '{"path": "a.wav"}\n{"path": "a.flac"}\n', "lines 1 and 2 have the same key 'a'"),
        ("m.jsonl", "[" * 100_000 + "\n", r"m\.jsonl:1: not a JSON"),
        ("m.jsonl", '{"path": "."}\n', r"m\.jsonl:"),
        (
            "m.jsonl",
            '{"path": "a.wav"}\n{"path": "b.wav", "duration": "3.2"}\n',
            r":2: .* number of seconds, got '3.2'",
        ),
        (
            "m.jsonl",
            '{"path": "a.wav", "duration": -1}\n',
            r"m\.jsonl:1: duration must be .*got -1; correct it or leave",
        ),
        ("m.jsonl", '{"path": "a.wav", "duration": NaN}\n', "got nan"),
        ("m.jsonl", '{"path": "a.wav", "duration": Infinity}\n', "got inf"),
        ("m.jsonl", '{"path": "a.wav", "duration": 1e12}\n', r"got 1000000000000\.0"),
        ("m.jsonl", '{"path": "a.wav", "duration": true}\n', "got True"),
        (
            "m.jsonl",
            '{"path": "a.wav", "num_samples": -1}\n',
            "num_samples must be a number of samples at 16000 Hz, got -1",
        ),
        ("m.jsonl", '{"path": "a.wav", "num_samples": %s}\n' % ("9" * 400), r"got 9{60}; correct"),
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


def test_transport_streams_are_audio_and_type_script_is_not(tmp_path) -> None:
    packet = b"G" + bytes(187)
    (tmp_path / "film.ts").write_bytes(packet * 3)
    (tmp_path / "camera.MTS").write_bytes((bytes(4) + packet) * 3)
    (tmp_path / "main.ts").write_text("Good code, but not audio.\n" * 20)
    (tmp_path / "empty.ts").touch()
    assert [utterance.path.name for utterance in scan(tmp_path)] == ["camera.MTS", "film.ts"]
