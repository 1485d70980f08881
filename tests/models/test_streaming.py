"""Encoders that stream: what a frame hears, and running statistics against their definition in NumPy."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from spintok.models.config import EncoderConfig
from spintok.models.encoder import Encoder
from spintok.models.running import BandStatistics, RunningNorm
from spintok.models.running_log_mel import RunningLogMelFrontEnd
from spintok.models.streaming import StreamingConfig
from tests.models.test_log_mel import CONFIG, speechlike
from tests.small_models import tiny_encoder

STREAMING = replace(CONFIG, streaming=StreamingConfig(past=6, prior=0.2))


def encoder(config: EncoderConfig = STREAMING) -> Encoder:
    return tiny_encoder(config=config)


def states(waveform: torch.Tensor, chunk: int | None, model: Encoder | None = None) -> torch.Tensor:
    with torch.no_grad():
        return (model or encoder()).hidden_states(waveform[None], layers=[2], chunk=chunk)[0][0][0]


def test_old_configurations_are_written_as_before() -> None:
    assert "streaming" not in CONFIG.to_dict()
    assert EncoderConfig.from_dict(json.loads(json.dumps(STREAMING.to_dict()))) == STREAMING


@pytest.mark.parametrize(
    "values",
    [
        {"front_end": "waveform", "streaming": {}},
        {"feed_forward_output": True, "streaming": {}},
        {"streaming": {"pasts": 3}},
        {"streaming": {"past": -1}},
        {"streaming": {"prior": 0}},
        {"streaming": {"half_life": float("nan")}},
        {"streaming": 3},
    ],
)
def test_impossible_configurations(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"streaming|past|prior|half_life"):
        EncoderConfig.from_dict({**CONFIG.to_dict(), **values})


@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_nothing_after_its_chunk_changes_a_frame(chunk: int) -> None:
    waveform = speechlike(16_000)
    other = waveform.clone()
    # The last chunk whose samples all come before the change.
    end = 24 * 320 + 80
    other[end:] = speechlike(16_000, seed=5)[end:]
    before, after = states(waveform, chunk), states(other, chunk)
    assert torch.equal(before[:24], after[:24])
    assert not torch.allclose(before[24:], after[24:], atol=1e-3)


def test_a_frame_hears_its_whole_chunk() -> None:
    waveform = speechlike(16_000)
    other = waveform.clone()
    other[15 * 320 :] = 0
    assert not torch.allclose(states(waveform, 16)[0], states(other, 16)[0], atol=1e-4)


def test_one_chunk_of_everything_is_full_context() -> None:
    waveform = speechlike(16_000)
    # The positional convolution by spectra or by taps: float32 rounding.
    torch.testing.assert_close(states(waveform, 49), states(waveform, None), atol=1e-4, rtol=1e-4)


def test_attention_remembers_only_the_past_it_is_given() -> None:
    """With one layer, past 6 and a kernel of 8, chunks of 4 frames hear 6 + 4 frames, and their statistics."""
    one = encoder(replace(STREAMING, layers=1))
    features = torch.randn(1, 40, 32)
    other = features.clone()
    other[:, :20] = torch.randn(1, 20, 32)
    with torch.no_grad():
        before, after = (one.transformer(x, layers=[1], chunk=4)[0][0] for x in (features, other))
    assert torch.equal(before[32:], after[32:])
    assert not torch.allclose(before[24:28], after[24:28], atol=1e-4)


@pytest.mark.parametrize("chunk", [None, 4])
def test_batches_do_not_change_features(chunk: int | None) -> None:
    model = encoder()
    waveforms = [speechlike(9_000, seed=2), speechlike(16_000), speechlike(450, seed=1), speechlike(100, seed=4)]
    batch = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
    lengths = torch.tensor([len(w) for w in waveforms])
    with torch.no_grad():
        together, counts = model.hidden_states(batch, lengths, layers=[2], chunk=chunk)
    assert counts.tolist() == [27, 49, 1, 0]
    for row, waveform in enumerate(waveforms):
        alone = states(waveform, chunk, model)
        torch.testing.assert_close(together[0][row, : len(alone)], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("chunk", [None, 4])
def test_gradients_are_finite_with_padding(chunk: int | None) -> None:
    model = encoder().train()
    batch = torch.stack([speechlike(16_000), torch.zeros(16_000)])
    (features,), _ = model.hidden_states(batch, torch.tensor([16_000, 2_000]), layers=[2], chunk=chunk)
    features.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    with torch.no_grad():
        alone = states(batch[0], chunk, model.eval())
        torch.testing.assert_close(features[0], alone, atol=1e-4, rtol=1e-4)


def test_chunks_need_an_encoder_that_streams() -> None:
    with pytest.raises(ValueError, match="no section streaming"):
        states(speechlike(4_000), 4, encoder(CONFIG))
    with pytest.raises(ValueError, match="at least 1"):
        states(speechlike(4_000), 0)


def moments(norm: RunningNorm, chunks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variance and normalised last chunk from the definition, chunk by chunk in float64."""
    config = norm.config
    prior, level_prior = config.prior * 100, config.level_prior * 100
    energy_prior = float(norm.prior_energy)
    prior_mean, prior_variance = norm.prior_mean.double().numpy(), norm.prior_variance.double().numpy()
    rows, weights, peak = [], np.zeros(0), 0.0
    logs = np.zeros(0)
    for chunk in chunks:
        fade = 0.5 ** (len(chunk) / 100 / config.half_life)
        amplitude = np.sqrt(chunk.mean(1))
        peak = max(peak * fade, amplitude.max())
        weights = np.concatenate([weights * fade, amplitude])
        logs = np.concatenate([logs, np.log(chunk.mean(1))])
        relative = weights / peak
        level = (level_prior * energy_prior + (relative * logs).sum()) / (level_prior + relative.sum())
        rows.append(np.log(chunk + config.floor * np.exp(level)))
    table = np.concatenate(rows)
    relative = weights / peak
    total = (relative[:, None] * table).sum(0)
    weight = relative.sum()
    shape = (prior * (prior_mean - prior_mean.mean()) + total - total.mean()) / (prior + weight)
    mean = shape + (level_prior * prior_mean.mean() + total.mean()) / (level_prior + weight)
    spread = (relative[:, None] * (table - total / weight) ** 2).sum(0)
    variance = (prior * prior_variance + spread) / (prior + weight)
    return mean, variance, (rows[-1] - mean) / np.sqrt(variance + 1e-2)


def test_running_statistics_follow_the_definition() -> None:
    rng = np.random.default_rng(0)
    norm = RunningNorm(5, StreamingConfig(prior=0.3, half_life=0.5))
    norm.prior_mean.copy_(torch.linspace(-4, 1, 5))
    chunks = [np.exp(rng.normal(0, 2, (8, 5))) for _ in range(6)]
    state = BandStatistics.none(1, 5, torch.device("cpu"))
    for chunk in chunks:
        state = norm.observe(state, torch.tensor(chunk)[None], torch.ones(1, 8, dtype=torch.bool))
    mean, variance, last = moments(norm, chunks)
    got_mean, got_variance = norm.moments(state)
    np.testing.assert_allclose(got_mean[0].numpy(), mean, atol=1e-9)
    np.testing.assert_allclose(got_variance[0].numpy(), variance, atol=1e-9)
    with torch.no_grad():
        rows = norm(torch.tensor(np.concatenate(chunks))[None], torch.tensor([48]), 4)[0, 40:]
    # The result is float32.
    np.testing.assert_allclose(rows.double().numpy(), last, atol=1e-5)


def front() -> RunningLogMelFrontEnd:
    found = encoder().front_end
    assert isinstance(found, RunningLogMelFrontEnd)
    return found


def features(waveform: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return front()(waveform[None], torch.tensor([len(waveform)]))[0]


def test_a_constant_offset_drops_out() -> None:
    waveform = speechlike(16_000)
    # 0.05 is a multiple of no float32 step of the samples: rounding noise, logarithms of which are taken.
    torch.testing.assert_close(features(waveform + 0.05), features(waveform), atol=2e-2, rtol=0)


def test_the_level_drops_out() -> None:
    waveform = speechlike(64_000)
    spread = features(waveform).std()
    assert (features(0.1 * waveform) - features(waveform)).abs().mean() < 0.1 * spread


def test_zeros_do_not_change_the_speech_before_them() -> None:
    waveform = speechlike(64_000)
    alone = features(waveform)
    longer = features(torch.cat([waveform, torch.zeros(64_000)]))[: len(alone)]
    # A window at the end holds both, and counts.
    assert (longer - alone).abs().mean() < 0.02 * alone.std()


def test_zeros_alone_are_finite() -> None:
    assert states(torch.zeros(8_000), 4).isfinite().all()
    assert states(torch.zeros(8_000), None).isfinite().all()
