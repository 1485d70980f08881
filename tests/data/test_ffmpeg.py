"""Formats that libsndfile cannot read."""

import json
import subprocess

import numpy as np
import pytest
import soundfile
import torch
from command_line import run
from packed_speech import parquet_of, tar_of

from spintok import cli
from spintok.data import audio, ffmpeg
from spintok.data.audio import AudioError
from spintok.data.manifest import scan

FORMATS = ["m4a", "mp4", "webm", "mkv", "aac", "wma", "amr", "avi", "mov", "ogv", "wv", "tta"]

needs_ffmpeg = pytest.mark.skipif(ffmpeg.program() is None, reason="needs ffmpeg")


@pytest.fixture
def no_ffmpeg(monkeypatch):
    monkeypatch.setattr(ffmpeg, "program", lambda: None)
    monkeypatch.setattr(ffmpeg, "version", lambda: None)


def convert(path, seconds=4.0):
    """A 300 Hz tone at 8 kHz in the format of the file's name."""
    source = path.with_suffix(".source.wav")
    soundfile.write(source, 0.3 * np.sin(600 * np.pi * np.arange(int(8000 * seconds)) / 8000), 8000)
    command = [ffmpeg.program(), "-nostdin", "-v", "error", "-y", "-i", source, path]
    done = subprocess.run(command, capture_output=True, text=True)
    source.unlink()
    if path.suffix == ".amr" and "encoder" in done.stderr:
        pytest.skip("this ffmpeg does not write AMR")
    assert done.returncode == 0, done.stderr
    return path


@needs_ffmpeg
@pytest.mark.parametrize("kind", FORMATS)
def test_what_libsndfile_cannot_read_is_decoded(tmp_path, kind) -> None:
    waveform = audio.read(convert(tmp_path / f"a.{kind}"))
    assert waveform.dtype.is_floating_point
    assert len(waveform) == pytest.approx(64_000, abs=4_000)
    middle = waveform[16_000:48_000].numpy()
    spectrum = np.abs(np.fft.rfft(middle))
    assert spectrum.argmax() == 600
    assert audio.declared_samples(tmp_path / f"a.{kind}") == len(waveform)
    assert middle.std() == pytest.approx(0.3 / np.sqrt(2), rel=0.25)


@needs_ffmpeg
def test_what_is_packed_is_decoded_as_a_file_is(tmp_path) -> None:
    path = convert(tmp_path / "a.m4a")
    (tmp_path / "a.tar").write_bytes(tar_of({"a.m4a": path.read_bytes(), "b.m4a": b"no audio" * 99}))
    (tmp_path / "a.parquet").write_bytes(parquet_of([path]))
    whole = audio.read(path)
    for name in ("a.tar", "a.parquet"):
        utterance = scan(tmp_path / name)[0]
        assert torch.equal(audio.read(utterance.path), whole)
        assert audio.decoder_version([utterance.path]) == ffmpeg.version()
        part = f"cut://1.0,0.5::{utterance.path}"
        rate = 8_000
        assert len(audio.read(part)) == audio.declared_samples(part) == rate
    (tmp_path / "b.m4a").write_bytes(b"no audio" * 99)
    messages = []
    for place in (tmp_path / "b.m4a", f"tar://b.m4a::{tmp_path}/a.tar"):
        with pytest.raises(AudioError) as caught:
            audio.read(place)
        messages.append(str(caught.value).removeprefix(f"{place}: "))
    assert messages[0] == messages[1]
    assert "/" not in messages[0]


@needs_ffmpeg
@pytest.mark.parametrize("kind", FORMATS)
def test_a_cut_file_is_refused_without_an_address_in_the_message(tmp_path, kind) -> None:
    path = convert(tmp_path / f"a.{kind}")
    path.write_bytes(path.read_bytes()[: int(0.6 * path.stat().st_size)])
    with pytest.raises(AudioError) as caught:
        audio.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "0x" not in str(caught.value)
    assert "\n" not in str(caught.value)


@needs_ffmpeg
def test_long_files_come_in_blocks(tmp_path, monkeypatch) -> None:
    path = convert(tmp_path / "a.wv")
    whole = audio.read(path)
    monkeypatch.setattr(audio, "BLOCK_SECONDS", 1)
    parts = list(audio.blocks(path))
    assert len(parts) > 3
    assert np.array_equal(np.concatenate(parts), whole.numpy())


@needs_ffmpeg
def test_a_playlist_under_another_name_opens_no_other_file(tmp_path) -> None:
    convert(tmp_path / "secret.aac")
    (tmp_path / "a.mp4").write_text(f"#EXTM3U\n#EXTINF:4,\n{tmp_path / 'secret.aac'}\n#EXT-X-ENDLIST\n")
    (tmp_path / "b.mp4").write_text(f"ffconcat version 1.0\nfile {tmp_path / 'secret.aac'}\n")
    for name in ("a.mp4", "b.mp4"):
        with pytest.raises(AudioError, match="ffmpeg cannot decode it"):
            audio.read(tmp_path / name)


def test_without_ffmpeg_the_message_says_how_to_get_it(tmp_path, no_ffmpeg) -> None:
    (tmp_path / "a.m4a").write_bytes(b"x")
    with pytest.raises(AudioError, match=r"a\.m4a: .* needs FFmpeg.*pip install 'spintok\[ffmpeg\]'"):
        audio.read(tmp_path / "a.m4a")


def test_files_that_cannot_be_decoded_are_listed_and_counted(capsys, tmp_path, no_ffmpeg) -> None:
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/good.wav", np.zeros(999), 16_000)
    (tmp_path / "in/talk.mp4").write_bytes(b"x")
    code, out, _ = run(capsys, "encode", tmp_path / "in", tmp_path / "out")
    assert code == cli.FAILED
    assert "2 files in = 1 files out + 1 failed" in out
    (failed,) = map(json.loads, (tmp_path / "out/failed.jsonl").read_text().splitlines())
    assert failed["key"] == "talk"
    assert "install ffmpeg" in failed["error"]


@needs_ffmpeg
def test_a_folder_holds_the_audio_of_one_decoder(capsys, tmp_path, monkeypatch) -> None:
    (tmp_path / "in").mkdir()
    convert(tmp_path / "in/a.m4a")
    command = ("encode", tmp_path / "in", tmp_path / "out", "-t", "mfcc-kmeans-100")
    with monkeypatch.context() as patch:
        # Without ffmpeg the file fails; with it, the same command encodes it.
        patch.setattr(ffmpeg, "program", lambda: None)
        patch.setattr(ffmpeg, "version", lambda: None)
        assert run(capsys, *command)[0] == cli.FAILED
    description = tmp_path / "out/tokenizer.json"
    assert "decoder" not in json.loads(description.read_text())
    assert run(capsys, *command)[0] == 0
    assert json.loads(description.read_text())["decoder"] == ffmpeg.version()
    assert "1 files were there already" in run(capsys, *command)[1]
    monkeypatch.setattr(ffmpeg, "version", lambda: "ffmpeg 0.1")
    code, _, err = run(capsys, *command)
    assert code == cli.USAGE
    assert "decoded, and here is ffmpeg 0.1" in err
    assert json.loads(description.read_text())["decoder"] != "ffmpeg 0.1"


@needs_ffmpeg
def test_the_version_counts_where_it_decodes() -> None:
    assert audio.decoder_version(["a.wav", "b.flac"]) is None
    assert audio.decoder_version(["a.wav", "b.M4A"]) == ffmpeg.version()
    assert ffmpeg.version().startswith("ffmpeg ")
