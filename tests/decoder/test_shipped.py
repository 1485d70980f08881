"""The voices that ship speak the tokens of their codebooks."""

import pytest

import spintok
from spintok.decoder.loading import load_decoder, shipped_decoders


@pytest.mark.parametrize("name", sorted(shipped_decoders()))
def test_a_shipped_voice_is_found_by_its_tokens(speech, name) -> None:
    source = load_decoder(name).source
    codebook = source.codebook
    tokenizer = spintok.load(source.tokenizer).at(source.latency)
    tokens = tokenizer.encode(speech / "fred_yes.flac", codebook=codebook)
    waveform = tokenizer.decode(tokens, codebook=codebook)
    assert waveform.shape == (tokens.num_frames * 320 + 80,)
    assert waveform.isfinite().all()
    assert 0.01 < waveform.abs().max() < 1
    # Each ends as it began: in silence, without a click.
    assert waveform[:80].abs().max() < 0.05
    assert waveform[-80:].abs().max() < 0.05


def test_voices_ship() -> None:
    assert set(shipped_decoders()) == {
        "dc-spin-10m-en-100-kathleen",
        "dc-spin-10m-en-500-kathleen",
        "dc-spin-stream-10m-en-100-kathleen",
    }
    # They are part of every installation.
    files = [file for folder in shipped_decoders().values() for file in folder.iterdir()]
    assert sum(file.stat().st_size for file in files) < 10_000_000
