"""Places of codes, and the audio around them."""

import base64
import io

import numpy as np
import pytest
import soundfile

from spintok.corpus import read_corpus
from spintok.corpus.token_formats import Record
from spintok.data.audio import AudioError, read
from spintok.report.places import CONTEXT_SECONDS, Place, code_sounds, sample_places
from spintok.tokens import Tokens


def test_places_are_occurrences_of_their_code(token_folder) -> None:
    records = {record.key: record for record in read_corpus(token_folder)[1]}
    places = sample_places(records.values(), "primary", count=3)
    counts = np.bincount(np.concatenate([record.tokens["primary"].units for record in records.values()]), minlength=100)
    assert {code: len(found) for code, found in places.items()} == {
        code: min(3, int(count)) for code, count in enumerate(counts) if count
    }
    for code, found in places.items():
        assert len(set(found)) == len(found)
        for place in found:
            tokens = records[place.key].tokens["primary"]
            (run,) = np.flatnonzero(np.isclose(tokens.times[:, 0], place.start))
            assert tokens.units[run] == code
            assert tokens.times[run, 1] == pytest.approx(place.end)
    assert places == sample_places(records.values(), "primary", count=3)


def test_places_are_drawn_uniformly_whatever_the_batch() -> None:
    """3,000 utterances, one occurrence each, come in three batches; a tenth of each is drawn."""
    records = [Record(f"u{i}", f"u{i}.wav", {"primary": Tokens([7], 8)}) for i in range(3000)]
    numbers = [int(place.key[1:]) for place in sample_places(records, "primary", count=300)[7]]
    assert len(set(numbers)) == 300
    assert np.histogram(numbers, bins=3, range=(0, 3000))[0] == pytest.approx([100, 100, 100], abs=30)


def test_a_clip_is_the_audio_around_the_token(tmp_path) -> None:
    # Each second has a tone of its own; the file is longer than one block.
    time = np.arange(16_000) / 16_000
    tones = [200 + 20 * second for second in range(35)]
    soundfile.write(tmp_path / "a.wav", np.concatenate([0.5 * np.sin(2 * np.pi * f * time) for f in tones]), 16_000)
    seconds = [0.0, 12.3, 29.9, 34.9]
    places = [Place("a", str(tmp_path / "a.wav"), None, start, start + 0.1) for start in seconds]
    found = code_sounds({3: places})[3]
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(found["sound"].split(",")[1])))
    lengths = [row["to"] - row["from"] for row in found["places"]]
    inside = 2 * CONTEXT_SECONDS + 0.1
    assert lengths == pytest.approx([inside - CONTEXT_SECONDS, inside, inside, inside - CONTEXT_SECONDS], abs=1e-3)
    for row, start in zip(found["places"], seconds, strict=True):
        assert row["end"] - row["start"] == pytest.approx(0.1, abs=1e-3)
        # Twice the length of the token, from its middle on the side that has room, resolves 20 Hz.
        clip = samples[round(row["start"] * rate) : round(row["end"] * rate)]
        spectrum = np.abs(np.fft.rfft(clip * np.hanning(len(clip)), n=16_000))
        assert abs(spectrum.argmax() * rate / 16_000 - tones[int(start)]) < 8


def test_audio_that_has_moved_is_one_line_that_says_so(tmp_path) -> None:
    with pytest.raises(AudioError, match=r"gone\.wav: no such file; --listen reads the audio files"):
        code_sounds({0: [Place("a", str(tmp_path / "gone.wav"), None, 0.0, 0.1)]})
    soundfile.write(tmp_path / "b.wav", np.zeros(16_000), 16_000)
    assert read(tmp_path / "b.wav").numel() == 16_000
