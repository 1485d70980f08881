import base64
import io
import json

import numpy as np
import pytest
import soundfile
from pages import Page

import spintok
from spintok.data.audio import AudioError, read
from spintok.report import recording_report
from spintok.report.audio_view import BANDS, data_uri, mel_image, outline


def _decoded(address: str) -> tuple[str, np.ndarray, int]:
    kind, data = address.removeprefix("data:").split(";base64,")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)), dtype="float32")
    return kind, samples, rate


def test_the_page_holds_the_tokens_and_the_sound(speech, two_codebooks, phones) -> None:
    path = speech / "beth_river.flac"
    page = Page(recording_report(path, two_codebooks, alignments=phones))
    lanes = {lane["name"]: lane for lane in page.data["lanes"]}
    assert list(lanes) == ["phones", "primary", "auxiliary"]
    for name in ("primary", "auxiliary"):
        tokens = two_codebooks.encode(path, codebook=name)
        assert lanes[name]["units"] == tokens.units.tolist()
        assert lanes[name]["durations"] == tokens.durations.tolist()
    aligned = {row["id"]: row["phones"] for row in map(json.loads, phones.read_text().splitlines())}["beth_river"]
    assert lanes["phones"]["labels"] == [label for label, _, _ in aligned]
    np.testing.assert_allclose(lanes["phones"]["times"], [times for _, *times in aligned])
    waveform = read(path).numpy()
    assert page.data["seconds"] == len(waveform) / 16_000
    (source,) = [attributes["src"] for tag, attributes in page.elements if tag == "audio"]
    kind, samples, rate = _decoded(source)
    assert (kind, rate) == ("audio/wav", 16_000)
    np.testing.assert_allclose(samples, waveform, atol=1 / 32768)


def test_long_sound_is_ogg_opus_and_stays_small() -> None:
    time = np.arange(61 * 16_000, dtype=np.float32) / 16_000
    waveform = 0.3 * np.sin(2 * np.pi * 440 * time) * (1 + np.sin(2 * np.pi * time))
    address, words = data_uri(waveform.astype(np.float32))
    kind, samples, _ = _decoded(address)
    assert kind == "audio/ogg"
    assert "24 kbit/s" in words
    assert len(address) < 61 * 8_000
    assert len(samples) == len(waveform)
    assert np.corrcoef(samples[8000:-8000], waveform[8000:-8000])[0, 1] > 0.99


def test_outline_encloses_the_waveform() -> None:
    waveform = np.random.default_rng(0).standard_normal(4001).astype(np.float32)
    found = outline(waveform)
    assert found.shape == (101, 2)
    pieces = np.array_split(waveform[:4000], 100)
    loudest = np.abs(waveform).max()
    np.testing.assert_allclose(found[:100, 0] / 127, [p.min() / loudest for p in pieces], atol=0.5 / 127 + 1e-6)
    np.testing.assert_allclose(found[:100, 1] / 127, [p.max() / loudest for p in pieces], atol=0.5 / 127 + 1e-6)
    assert not outline(np.zeros(4000, dtype=np.float32)).any()


@pytest.mark.parametrize("hertz", [300, 1000, 4000])
def test_a_tone_lights_its_band(hertz) -> None:
    time = np.arange(16_000) / 16_000
    image = mel_image(np.sin(2 * np.pi * hertz * time).astype(np.float32))
    assert image.shape == (100, BANDS)
    # The centre of band b lies at (b + 1) / (BANDS + 1) of the mel scale's length.
    mel = np.log10(1 + hertz / 700) / np.log10(1 + 8000 / 700) * (BANDS + 1) - 1
    assert abs(int(image[50].argmax()) - mel) <= 1
    assert image[50].max() > 250


def test_a_click_lights_its_columns() -> None:
    waveform = np.zeros(16_000 + 80, dtype=np.float32)
    waveform[8000] = 1
    loud = mel_image(waveform).max(axis=1)
    assert len(loud) == 101
    # A window of 25 ms around a column's 10 ms: those that hold sample 8,000, at 500 ms.
    assert np.flatnonzero(loud).tolist() == [49, 50]
    assert not mel_image(np.zeros(100, dtype=np.float32)).any()


def test_sound_without_a_frame(tmp_path, two_codebooks) -> None:
    soundfile.write(tmp_path / "click.wav", np.zeros(100), 16_000)
    page = Page(recording_report(tmp_path / "click.wav", two_codebooks))
    assert [lane["units"] for lane in page.data["lanes"]] == [[], []]


def test_what_is_too_long_is_refused(tmp_path, two_codebooks) -> None:
    soundfile.write(tmp_path / "long.flac", np.zeros(601 * 16_000, dtype=np.int16), 16_000)
    with pytest.raises(AudioError, match="longer than the 10 minutes that a page can show"):
        recording_report(tmp_path / "long.flac", two_codebooks)


def test_alignments_of_other_files(speech, two_codebooks, phones) -> None:
    with pytest.raises(ValueError, match="no utterance has an alignment"):
        recording_report(speech / "anna_tokens.flac", two_codebooks, alignments=phones)


def test_what_the_tokens_say_is_what_the_decoder_says(speech, two_codebooks, decoders) -> None:
    path = speech / "fred_yes.flac"
    page = Page(recording_report(path, two_codebooks, decoders=decoders))
    sounds = [attributes for tag, attributes in page.elements if tag == "audio"]
    assert [one.get("data-speaks") for one in sounds] == [None, "0", "1"]
    for one, decoder in zip(sounds[1:], decoders, strict=True):
        expected = decoder.decode(two_codebooks.encode(path, codebook=decoder.source.codebook)).numpy()
        np.testing.assert_allclose(_decoded(one["src"])[1], expected, atol=1 / 32768)
    assert "spoken by hum-primary in the voice of nobody" in page.text
    other = recording_report(path, two_codebooks)
    assert "data-speaks" not in other
    with pytest.raises(ValueError, match="decoder 'hum-primary' speaks codebook 'primary' of two .* none of the"):
        recording_report(path, spintok.load("mfcc-kmeans-100"), decoders=decoders[:1])
