"""Damaged and truncated files of every format are found, whatever the decoder makes of them."""

import random

import numpy as np
import pytest
import soundfile

from spintok.data import audio
from spintok.data.audio import AudioError, AudioWarning

FORMATS = {
    "pcm.wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "extensible.wav": ("WAVEX", "PCM_24"),
    "alaw.wav": ("WAV", "ALAW"),
    "a.rf64": ("RF64", "PCM_16"),
    "a.w64": ("W64", "PCM_16"),
    "a.aiff": ("AIFF", "PCM_16"),
    "float.aifc": ("AIFF", "FLOAT"),
    "a.au": ("AU", "PCM_16"),
    "float.au": ("AU", "FLOAT"),
    "a.sph": ("NIST", "PCM_16"),
    "ulaw.sph": ("NIST", "ULAW"),
    "a.caf": ("CAF", "PCM_16"),
    "a.flac": ("FLAC", "PCM_16"),
    "a.ogg": ("OGG", "VORBIS"),
    "a.opus": ("OGG", "OPUS"),
}
OGG = ["a.ogg", "a.opus"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of five seconds of noise in each format, and a folder to write to."""
    folder = tmp_path_factory.mktemp("formats")
    noise = 0.1 * np.random.default_rng(0).standard_normal(80_000)
    for name, (kind, subtype) in FORMATS.items():
        soundfile.write(folder / name, noise, 16_000, format=kind, subtype=subtype)
    return {name: (folder / name).read_bytes() for name in FORMATS}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_cut_anywhere_is_refused(tmp_path, whole, name) -> None:
    data = whole[name]
    assert len(audio.read(write(tmp_path / name, data))) == 80_000
    for share in (0.02, 0.3, 0.7, 0.95, 0.99):
        with pytest.raises(AudioError):
            audio.read(write(tmp_path / name, data[: int(share * len(data))]))


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in (*OGG, "a.flac", "a.caf")])
def test_a_tail_of_a_few_milliseconds_may_be_missing(tmp_path, whole, name) -> None:
    path = write(tmp_path / name, whole[name])
    rate = len(whole[name]) / 5
    missing = int(0.01 * rate)
    write(path, whole[name][:-missing])
    with pytest.warns(AudioWarning, match="ms are missing"):
        waveform = audio.read(path)
    assert 0.98 < (80_000 - len(waveform)) / (0.01 * 16_000) < 1.02
    write(path, whole[name][: -4 * missing])
    with pytest.raises(AudioError, match="cut short"):
        audio.read(path)


@pytest.mark.parametrize("name", OGG)
def test_a_flipped_bit_in_an_ogg_file_is_found(tmp_path, whole, name) -> None:
    # libsndfile skips a page whose checksum is wrong, and reads on.
    chance = random.Random(0)
    for _ in range(40):
        data = bytearray(whole[name])
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        with pytest.raises(AudioError):
            audio.read(write(tmp_path / name, data))


@pytest.mark.parametrize("name", OGG)
def test_an_ogg_file_without_a_page_is_found(tmp_path, whole, name) -> None:
    starts = [at for at in range(len(whole[name])) if whole[name].startswith(b"OggS", at)]
    middle = len(starts) // 2
    data = whole[name][: starts[middle]] + whole[name][starts[middle + 1] :]
    with pytest.raises(AudioError, match="pages are missing"):
        audio.read(write(tmp_path / name, data))


@pytest.mark.parametrize("name", OGG)
def test_ogg_streams_one_after_another_are_refused(tmp_path, whole, name) -> None:
    # libsndfile reads the first one only.
    with pytest.raises(AudioError, match="several Ogg streams"):
        audio.read(write(tmp_path / name, whole[name] * 2))


def test_bytes_after_the_end_of_an_ogg_file_do_no_harm(tmp_path, whole) -> None:
    assert len(audio.read(write(tmp_path / "a.opus", whole["a.opus"] + b"TAG" + bytes(125)))) == 80_000


def test_a_header_that_leaves_the_length_open_is_no_cut(tmp_path, whole) -> None:
    data = bytearray(whole["a.au"])
    data[8:12] = b"\xff\xff\xff\xff"
    assert len(audio.read(write(tmp_path / "a.au", data))) == 80_000


def write(path, data):
    path.write_bytes(data)
    return path
