import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spintok.data import audio
from spintok.frames import num_frames
from spintok.models.mfcc import Mfcc


@pytest.mark.filterwarnings("ignore")
def test_equals_torchaudios_kaldi_mfcc(speech) -> None:
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi", exc_type=(ImportError, OSError))
    functional = pytest.importorskip("torchaudio.functional")
    for path in speech.glob("*.flac"):
        waveform = audio.read(path)
        cepstra = kaldi.mfcc(waveform[None], sample_frequency=16_000, use_energy=False)
        first = functional.compute_deltas(cepstra.T).T
        expected = torch.cat([cepstra, first, functional.compute_deltas(first.T).T], dim=1)[::2]
        features, counts = Mfcc()(waveform[None], torch.tensor([len(waveform)]))
        assert counts.tolist() == [len(expected)] == [num_frames(len(waveform))]
        # Cepstra reach 70; a log of a band near zero turns a rounding error of 1e-7 into 1e-4.
        torch.testing.assert_close(features[0], expected, atol=2e-3, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4000), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_features_do_not_depend_on_the_batch(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    waveforms = [torch.from_numpy(rng.standard_normal(n).astype(np.float32)) * 0.1 for n in lengths]
    # The samples after the end of an utterance must not matter.
    padded = torch.full((len(lengths), max(lengths)), 0.7)
    for row, waveform in zip(padded, waveforms, strict=True):
        row[: len(waveform)] = waveform
    mfcc = Mfcc()
    together, counts = mfcc(padded, torch.tensor(lengths))
    for row, waveform, count in zip(together, waveforms, counts.tolist(), strict=True):
        alone, own = mfcc(waveform[None], torch.tensor([len(waveform)]))
        assert count == int(own[0]) == num_frames(len(waveform))
        torch.testing.assert_close(row[:count], alone[0], atol=1e-3, rtol=1e-4)
        assert not row[count:].any()


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(B, S\)"):
        Mfcc()(torch.zeros(400), torch.tensor([400]))
