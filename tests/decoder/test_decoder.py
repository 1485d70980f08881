"""The decoder: exact lengths, streams that equal the whole, what is refused, and the folder."""

import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_decoders import tiny_decoder

import spintok
from spintok.decoder import CodebookMismatchError, Decoder, Source, load_decoder
from spintok.decoder.network import Smoother, smooth
from spintok.frames import num_frames, num_samples
from spintok.serialization import FolderError
from spintok.tokens import Tokens

CODES = np.random.default_rng(0).integers(0, 7, 60)


@pytest.mark.parametrize("frames", [0, 1, 2, 3, 7, 60])
def test_the_samples_are_those_that_the_frames_stand_for(frames) -> None:
    waveform = tiny_decoder().decode(CODES[:frames])
    assert waveform.shape == (num_samples(frames),)
    assert num_frames(len(waveform)) == frames
    assert waveform.dtype == torch.float32
    assert waveform.isfinite().all()


@pytest.mark.parametrize(("hop", "reach"), [(320, 400), (160, 400), (640, 640), (320, 5000)])
def test_other_frames_have_their_own_lengths(hop, reach) -> None:
    decoder = tiny_decoder(hop=hop, reach=reach)
    for frames in (0, 1, 5):
        assert len(decoder.decode(CODES[:frames])) == num_samples(frames, decoder.source.grid)
        stream = decoder.stream()
        pieces = [stream.push(CODES[i : i + 1]) for i in range(frames)]
        assert len(torch.cat([*pieces, stream.close()])) == num_samples(frames, decoder.source.grid)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=12), st.sampled_from(["anna", "beth"]))
def test_a_stream_equals_the_whole_however_it_is_cut(cuts, voice) -> None:
    decoder = tiny_decoder()
    whole = decoder.decode(CODES, voice)
    stream = decoder.stream(voice)
    pieces = [stream.push(part) for part in np.split(CODES, sorted(cuts))]
    together = torch.cat([*pieces, stream.close()])
    # Float rounding of another order of sums: 1e-7 of the network, times the slope of exp and of the phase.
    torch.testing.assert_close(together, whole, rtol=0, atol=1e-4)


def test_a_stream_lags_by_its_latency_at_most() -> None:
    decoder = tiny_decoder()
    stream = decoder.stream()
    pushed = received = 0
    for part in np.split(CODES, range(4, 60, 4)):
        received += len(stream.push(part))
        pushed += 320 * len(part)
        assert pushed - received <= decoder.latency * decoder.sample_rate + 1e-6


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_smoothing_is_a_mean_under_a_hann_window_of_what_is_there(radius) -> None:
    """Against a loop over the vectors; two of the second recording are padding."""
    values, lengths = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(0)).double(), (9, 7)
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    found = smooth(values, radius, mask)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1, 2 * radius + 2) / (2 * radius + 2))
    for row, length in enumerate(lengths):
        for i in range(length):
            near = [j for j in range(i - radius, i + radius + 1) if 0 <= j < length]
            expected = np.average(values[row, near], axis=0, weights=window[[j - i + radius for j in near]])
            np.testing.assert_allclose(found[row, i], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("cuts", [[], [0, 1, 2, 3], [1, 1, 8], [5]])
def test_smoothing_in_pieces_is_that_of_the_whole(cuts) -> None:
    values = torch.randn(1, 9, 4, generator=torch.Generator().manual_seed(0))
    smoother = Smoother(3)
    pieces = [smoother.push(part) for part in values.tensor_split(cuts, 1)]
    together = torch.cat([*pieces, smoother.push(values[:, :0], last=True)], 1)
    torch.testing.assert_close(together, smooth(values, 3))


def test_a_closed_stream_takes_no_codes() -> None:
    stream = tiny_decoder().stream()
    assert len(stream.close()) == 0
    with pytest.raises(ValueError, match="closed"):
        stream.push([1])


def test_equal_tokens_give_equal_samples_and_voices_differ() -> None:
    decoder = tiny_decoder()
    assert torch.equal(decoder.decode(CODES), decoder.decode(CODES, "anna"))
    assert not torch.equal(decoder.decode(CODES), decoder.decode(CODES, "beth"))
    with pytest.raises(ValueError, match=r"unknown voice 'carl'; decoder 'tiny' has: anna, beth"):
        decoder.decode(CODES, "carl")


def test_units_get_durations() -> None:
    decoder = tiny_decoder()
    durations = decoder.durations([3, 1, 2])
    assert durations.shape == (3,)
    assert durations.min() >= 1
    expected = decoder.decode(Tokens.from_runs([3, 1, 2], durations, 7))
    assert torch.equal(decoder.decode_units([3, 1, 2]), expected)
    assert len(decoder.decode_units([])) == 0


def test_tokens_of_another_codebook_are_refused() -> None:
    decoder = tiny_decoder()
    with pytest.raises(CodebookMismatchError, match="codebook of 9"):
        decoder.decode(Tokens([1, 2], 9))
    with pytest.raises(CodebookMismatchError, match=r"these are of 000000000000, codebook 'primary'"):
        decoder.check("0" * 64, "primary")
    with pytest.raises(ValueError, match=r"codes must be in \[0, 7\)"):
        decoder.decode([7])
    decoder.check("f" * 64, "primary", 7)


def test_a_tokenizer_decodes_its_own_tokens_only(tmp_path, speech) -> None:
    tokenizer = spintok.load("mfcc-kmeans-100")
    made = Decoder(Source(tokenizer.name, tokenizer.fingerprint, "primary", 100), ["anna"])
    tokens = tokenizer.encode(speech / "fred_yes.flac")
    waveform = tokenizer.decode(tokens, decoder=made)
    assert len(waveform) == num_samples(tokens.num_frames)
    made.save(tmp_path / "decoder", dtype="float32")
    assert torch.equal(tokenizer.decode(tokens, "anna", decoder=tmp_path / "decoder"), waveform)
    with pytest.raises(CodebookMismatchError):
        tokenizer.decode(tokens, decoder=tiny_decoder())
    with pytest.raises(ValueError, match="no decoder ships with spintok for mfcc-kmeans-100"):
        tokenizer.decode(tokens)


def test_a_folder_gives_the_decoder_back_and_names_what_is_wrong(tmp_path) -> None:
    decoder = tiny_decoder()
    decoder.save(tmp_path, dtype="float32")
    loaded = load_decoder(tmp_path)
    assert (loaded.source, loaded.voices, loaded.name) == (decoder.source, decoder.voices, decoder.name)
    assert torch.equal(loaded.decode(CODES), decoder.decode(CODES))
    config = json.loads((tmp_path / "config.json").read_text())
    for change, message in (
        ({"network": {"width": 10**9}}, "does not describe a decoder"),
        ({"voices": []}, "needs voices"),
        ({"voices": ["anna"]}, "does not fit config.json"),
        ({"source": {}}, "does not describe a decoder"),
        ({"spintok_decoder": 9}, "has the format 9"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(FolderError, match=message):
            load_decoder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FolderError, match="contains no decoder"):
        load_decoder(tmp_path)
    with pytest.raises(ValueError, match="unknown decoder 'nowhere'"):
        load_decoder("nowhere")


def test_weights_that_are_not_finite_are_refused(tmp_path) -> None:
    decoder = copy.deepcopy(tiny_decoder())
    with torch.no_grad():
        next(iter(decoder.parameters())).view(-1)[0] = float("nan")
    decoder.save(tmp_path)
    with pytest.raises(FolderError, match="has weights that are NaN or infinite"):
        load_decoder(tmp_path)
