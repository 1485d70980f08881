"""The log-mel front end against NumPy in float64; it does not depend on the batch or on chunks."""

import numpy as np
import pytest
import torch

from spintok.frames import num_frames
from spintok.models.config import EncoderConfig
from spintok.models.encoder import random_encoder
from spintok.models.log_mel import LogMelFrontEnd

CONFIG = EncoderConfig(
    front_end="log_mel",
    conv_channels=(24, 32),
    conv_kernels=(240, 2),
    conv_strides=(160, 2),
    width=32,
    heads=2,
    feed_forward=64,
    layers=2,
    positional_kernel=8,
    positional_groups=4,
)


def speechlike(samples: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    tone = np.sin(np.cumsum(rng.uniform(0.01, 0.3, samples // 400 + 1)).repeat(400)[:samples] * np.arange(samples))
    return torch.tensor(0.1 * tone * rng.uniform(0, 1, samples) + 1e-3 * rng.standard_normal(samples)).float()


def front_end(seed: int = 0) -> LogMelFrontEnd:
    found = random_encoder(CONFIG, torch.Generator().manual_seed(seed)).eval().front_end
    assert isinstance(found, LogMelFrontEnd)
    return found


def oracle(front: LogMelFrontEnd, waveform: np.ndarray) -> np.ndarray:
    """The features (T, C) from the definition, frame by frame."""
    starts = range(0, len(waveform) - 239, 160)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(240) / 239)
    power = [np.abs(np.fft.rfft(waveform[start : start + 240] * window, n=front.fft)) ** 2 for start in starts]
    bands = np.log(np.stack(power) @ front.mel.double().numpy() + 1e-6)
    bands = (bands - bands.mean(0)) / np.sqrt(bands.var(0) + 1e-2)
    weight = front.layers[0].weight.detach().double().numpy()
    rows = [bands[2 * t] @ weight[0] + bands[2 * t + 1] @ weight[1] for t in range(num_frames(len(waveform)))]
    return torch.nn.functional.gelu(torch.tensor(np.stack(rows))).numpy()


@pytest.mark.parametrize("samples", [400, 719, 720, 16_000, 16_123])
def test_features_follow_the_definition(samples: int) -> None:
    front = front_end()
    waveform = speechlike(samples)
    with torch.no_grad():
        got = front(waveform[None], torch.tensor([samples]))[0]
    want = oracle(front, waveform.double().numpy())
    assert got.shape == want.shape == (num_frames(samples), 32)
    # Logarithms of float32 energies, divided by standard deviations of 0.1 and more.
    assert np.abs(got.numpy() - want).max() < 2e-4


def test_training_and_inference_agree_and_a_batch_changes_nothing() -> None:
    encoder = random_encoder(CONFIG, torch.Generator().manual_seed(0)).eval()
    lengths = torch.tensor([16_000, 9_001, 399, 400])
    batch = torch.zeros(4, 16_000)
    for row, length in enumerate(lengths.tolist()):
        batch[row, :length] = speechlike(length, row)
    with torch.no_grad():
        together, counts = encoder.local_features(batch, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone, _ = encoder.local_features(batch[row : row + 1, :length])
            assert torch.allclose(together[row, : counts[row]], alone[0], atol=1e-5)
    padded, _ = encoder.local_features(batch, lengths)
    assert torch.allclose(padded, together, atol=1e-5)
    assert counts.tolist() == [num_frames(length) for length in lengths.tolist()]


@pytest.mark.parametrize("cuts", [[1], [100, 333, 5000], [240] * 20])
def test_statistics_of_blocks_are_those_of_the_whole(cuts: list[int]) -> None:
    front = front_end()
    waveform = speechlike(16_123)
    whole = front.statistics(waveform[None], torch.tensor([len(waveform)]))
    blocks = torch.split(waveform, [*cuts, len(waveform) - sum(cuts)])
    streamed = front.stream_statistics(blocks)
    assert streamed.patches.tolist() == whole.patches.tolist() == [(16_123 - 240) // 160 + 1]
    for got, want in zip(streamed.patch_mean_and_covariance(), whole.patch_mean_and_covariance(), strict=True):
        assert torch.allclose(got, want, rtol=1e-6, atol=1e-6)


def test_neither_level_nor_colour_is_seen() -> None:
    front = front_end()
    waveform = 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([16_000])
    with torch.no_grad():
        plain, louder = front(waveform[None], lengths), front(5 * waveform[None], lengths)
    assert torch.allclose(plain, louder, atol=1e-2)


def test_silence_is_finite() -> None:
    with torch.no_grad():
        assert front_end()(torch.zeros(1, 8000), torch.tensor([8000])).isfinite().all()


def test_normalisation_cannot_be_chosen_otherwise() -> None:
    with pytest.raises(ValueError, match='front_end "log_mel" normalises its bands'):
        EncoderConfig(front_end="log_mel", conv_norm="layer")
    with pytest.raises(ValueError, match='front_end is "waveform" or "log_mel"'):
        EncoderConfig(front_end="mel")  # type: ignore[arg-type]
