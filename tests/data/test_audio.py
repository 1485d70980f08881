import os

import numpy as np
import pytest
import soundfile
import torch

from spintok.data import audio
from spintok.data.audio import AudioError

SECOND = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype(np.float32) * 0.5


def write(path, samples=SECOND, rate=16_000, **options):
    soundfile.write(path, samples, rate, **options)
    return path


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_U8", "FLOAT", "DOUBLE"])
def test_wav_of_any_kind(tmp_path, subtype) -> None:
    waveform = audio.read(write(tmp_path / "a.wav", subtype=subtype))
    assert waveform.dtype == torch.float32
    assert waveform.shape == (16_000,)
    assert np.abs(waveform.numpy() - SECOND).max() < (0.01 if subtype == "PCM_U8" else 1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.flac", {}),
        ("a.ogg", {"subtype": "VORBIS"}),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
        ("a.mp3", {}),
        ("a.aiff", {}),
    ],
)
def test_compressed_formats(tmp_path, name, options) -> None:
    waveform = audio.read(write(tmp_path / name, **options)).numpy()
    # An mp3 holds whole packets, and its decoder's delay is removed by libsndfile or not.
    assert abs(len(waveform) - 16_000) < 2_500
    spectrum = np.abs(np.fft.rfft(waveform[2_000:14_000]))
    assert np.argmax(spectrum) == 440 * 12_000 // 16_000


def test_channels_are_averaged(tmp_path) -> None:
    stereo = np.stack([SECOND, np.zeros_like(SECOND)], axis=1)
    waveform = audio.read(write(tmp_path / "a.wav", stereo, subtype="FLOAT"))
    np.testing.assert_allclose(waveform.numpy(), SECOND / 2, atol=1e-7)
    np.testing.assert_allclose(audio.from_array(stereo.T, 16_000).numpy(), SECOND / 2, atol=1e-7)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_other_rates_keep_the_tone_and_the_length(tmp_path, rate) -> None:
    count = rate + 37
    tone = np.sin(2 * np.pi * 440 * np.arange(count) / rate) * 0.5
    waveform = audio.read(write(tmp_path / "a.wav", tone, rate, subtype="FLOAT")).numpy()
    assert len(waveform) == int(count * 16_000 / rate + 0.5)
    expected = np.sin(2 * np.pi * 440 * np.arange(len(waveform)) / 16_000) * 0.5
    # soxr's HQ errs by 20 bits; the ends ring.
    assert np.abs(waveform - expected)[500:-500].max() < 1e-4


def test_blocks_are_the_whole_bit_for_bit(tmp_path, monkeypatch) -> None:
    path = write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 200_000), 44_100)
    whole = audio.read(path)
    monkeypatch.setattr(audio, "BLOCK_SECONDS", 1)
    parts = list(audio.blocks(path))
    assert len(parts) > 3
    assert torch.equal(torch.cat(parts), whole)


def test_the_length_is_known_from_the_header(tmp_path) -> None:
    path = write(tmp_path / "a.wav", np.zeros(44_099), 44_100)
    assert audio.declared_samples(path) == 15_999
    long = audio.record(path, 100)
    assert long.seconds == 15_999 / 16_000
    with pytest.raises(AudioError, match=r"b\.wav: no such file"):
        audio.declared_samples(tmp_path / "b.wav")


def test_record_holds_short_audio_only(tmp_path) -> None:
    path = write(tmp_path / "a.wav")
    short, long = audio.record(path, 16_000), audio.record(path, 15_999)
    assert short.waveform is not None
    assert long.waveform is None
    assert torch.equal(torch.cat(list(long.blocks())), short.waveform)
    assert torch.equal(torch.cat(list(long.blocks())), short.waveform)


def test_integers_are_scaled() -> None:
    waveform = audio.from_array(np.array([-32_768, 0, 16_384], dtype=np.int16), 16_000)
    assert waveform.tolist() == [-1.0, 0.0, 0.5]


def cut(path, share=0.6):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


BAD = {
    "missing": (lambda d: d / "no.wav", "no such file"),
    "empty": (lambda d: (d / "a.wav", (d / "a.wav").write_bytes(b""))[0], r"empty \(0 bytes\)"),
    "no samples": (lambda d: write(d / "a.wav", np.zeros(0)), "no samples"),
    "text": (lambda d: (d / "a.wav", (d / "a.wav").write_text("hello " * 99))[0], "libsndfile cannot read"),
    "folder": (lambda d: d, "is a folder"),
    "cut wav": (lambda d: cut(write(d / "a.wav")), "cut short"),
    "cut aiff": (lambda d: cut(write(d / "a.aiff")), "cut short"),
    "cut flac": (lambda d: cut(write(d / "a.flac")), "libsndfile cannot read|cut short"),
    "cut ogg": (lambda d: cut(write(d / "a.ogg", np.tile(SECOND, 30)), 0.9), "cut short"),
    "cut opus": (
        lambda d: cut(write(d / "a.opus", np.tile(SECOND, 30), format="OGG", subtype="OPUS"), 0.9),
        "cut short",
    ),
    "nan": (lambda d: write(d / "a.wav", np.where(SECOND > 0.49, np.nan, SECOND), subtype="FLOAT"), "NaN"),
    "huge": (lambda d: write(d / "a.wav", np.where(SECOND > 0.49, 1e19, SECOND), subtype="FLOAT"), "samples reach 1e"),
    "1 Hz": (lambda d: write(d / "a.wav", rate=1), "sample rate of 1 Hz is outside"),
    "4e8 Hz": (lambda d: write(d / "a.wav", rate=400_000_000), "sample rate of 400000000 Hz is outside"),
    "pipe": (lambda d: (d / "a.wav", os.mkfifo(d / "a.wav"))[0], "is a pipe or a device"),
    "name": (lambda d: d / "a\0.wav", "null byte"),
    "infinite": (lambda d: write(d / "a.wav", np.where(SECOND > 0.49, np.inf, SECOND), subtype="FLOAT"), "NaN or inf"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_named_with_the_cause(tmp_path, kind) -> None:
    make, message = BAD[kind]
    path = make(tmp_path)
    with pytest.raises(AudioError, match=message) as caught:
        audio.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wav_from_a_pipe_is_not_cut_short(tmp_path) -> None:
    path = write(tmp_path / "a.wav")
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert len(audio.read(path)) == 16_000


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros((16_000, 2)), 16_000, "transpose"),
        (np.zeros((1, 2, 3)), 16_000, "waveform is"),
        (np.zeros(9, dtype=np.uint8), 16_000, "signed integers"),
        (np.zeros(9), 0, "sample_rate"),
        (np.zeros(9), 16_000.5, "sample_rate"),
        (np.full(9, np.nan), 16_000, "NaN"),
        (np.full(9, -1e20), 16_000, "samples reach 1e"),
        (np.zeros(9), 4 * 10**8, "sample rate of 400000000 Hz"),
    ],
)
def test_bad_arrays_are_refused(samples, rate, message) -> None:
    with pytest.raises(AudioError, match=message):
        audio.from_array(samples, rate)
