"""An encoder step by step computes what it computes for a whole waveform with chunk masks."""

from dataclasses import replace

import pytest
import torch
from spintok_kernels.steps import STEPS
from torch.nn import functional as F

from spintok.frames import num_samples
from spintok.masks import length_mask
from spintok.models.steps import EncoderSteps
from tests.models.test_log_mel import speechlike
from tests.models.test_streaming import STREAMING
from tests.small_models import tiny_encoder


@pytest.mark.parametrize("chunk", [1, 4, 10])
@pytest.mark.parametrize("norm_position", ["pre", "post"])
@torch.inference_mode()
def test_steps_compute_the_masked_pass(chunk: int, norm_position: str) -> None:
    encoder = tiny_encoder(config=replace(STREAMING, norm_position=norm_position))
    steps = EncoderSteps(encoder, layer=2, chunk=chunk, look=0)
    waveforms = torch.stack([speechlike(16_000, seed) for seed in (1, 2)])
    whole, _ = encoder.hidden_states(waveforms, layers=[0, 1, 2], chunk=chunk)
    state = steps.start(2)
    size = num_samples(chunk)
    for start in range(0, 49 - chunk, chunk):
        part = waveforms[:, start * 320 : start * 320 + size]
        found, state = steps.step(state, part, torch.tensor([chunk, chunk]), [0, 1, 2])
        for got, want in zip(found, whole, strict=True):
            # Keys and values of the past are rounded to float16, 11 bits.
            torch.testing.assert_close(got, want[:, start : start + chunk], atol=5e-3, rtol=5e-3)


@torch.inference_mode()
def test_look_ahead_is_heard_and_computed_again() -> None:
    encoder = tiny_encoder(config=STREAMING)
    waveform = speechlike(16_000)[None]
    steps = EncoderSteps(encoder, layer=2, chunk=4, look=4)
    valid = torch.tensor([8])
    (first,), state = steps.step(steps.start(1), waveform[:, : num_samples(8)], valid, [2])
    assert int(state.frames) == 4
    # A first step hears what a chunk of its size hears.
    whole, _ = encoder.hidden_states(waveform, layers=[2], chunk=8)
    torch.testing.assert_close(first, whole[0][:, :8], atol=1e-4, rtol=1e-4)
    (second,), state = steps.step(state, waveform[:, 4 * 320 : 4 * 320 + num_samples(8)], valid, [2])
    assert not torch.allclose(second[:, :4], first[:, 4:], atol=1e-4)


@torch.inference_mode()
def test_the_state_has_a_fixed_size() -> None:
    encoder = tiny_encoder(config=STREAMING)
    steps = EncoderSteps(encoder, layer=2, chunk=4, look=0)
    state = steps.start(1)
    shapes = {name: tensor.shape for name, tensor in state.tensors().items()}
    for _ in range(5):
        _, state = steps.step(state, torch.randn(1, num_samples(4)), torch.tensor([4]), [2])
    assert {name: tensor.shape for name, tensor in state.tensors().items()} == shapes
    again = type(state).from_tensors(state.tensors())
    assert all(torch.equal(a, b) for a, b in zip(again.tensors().values(), state.tensors().values(), strict=True))


@pytest.mark.parametrize("norm_position", ["pre", "post"])
@torch.inference_mode()
def test_compiled_steps_compute_the_same_in_any_company(norm_position: str) -> None:
    encoder = tiny_encoder(config=replace(STREAMING, norm_position=norm_position))
    steps = EncoderSteps(encoder, layer=2, chunk=4, look=2)
    if steps.compiled is None:
        pytest.skip(STEPS.choose()[1])
    waveforms = [speechlike(16_000, seed) for seed in range(3)]
    size = num_samples(6)
    states, single = [[steps.start(1) for _ in waveforms] for _ in range(2)]
    batch = steps.start(3)
    for start in range(0, 40, 4):
        parts = [waveform[start * 320 : start * 320 + size] for waveform in waveforms]
        found = steps.together(states, parts, [6, 6, 6], [0, 1, 2])
        want, batch = steps.step(batch, torch.stack(parts), torch.tensor([6, 6, 6]), [0, 1, 2])
        for row, (features, state) in enumerate(found):
            ((alone, single[row]),) = steps.together([single[row]], [parts[row]], [6], [0, 1, 2])
            for got, own, expected in zip(features, alone, want, strict=True):
                assert torch.equal(got, own)
                torch.testing.assert_close(got, expected[row], atol=1e-2, rtol=1e-2)
            for got, own in zip(state.tensors().values(), single[row].tensors().values(), strict=True):
                assert torch.equal(got, own)
        states = [state for _, state in found]


@pytest.mark.parametrize("core", ["avx512", "avx2", "portable"])
@pytest.mark.parametrize("options", [{}, {"feature_norm": False}, {"projection": False, "conv_bias": True}])
@torch.inference_mode()
def test_the_compiled_front_end_is_the_definition(
    core: str, options: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STEPS.variable, core)
    try:
        STEPS.choose()
    except RuntimeError as error:
        pytest.skip(str(error))
    config = replace(STREAMING, **options)
    if not config.projection:
        config = replace(config, width=config.conv_channels[-1])
    encoder = tiny_encoder(config=config)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in encoder.front_end.state_dict().items():
        # Also what is zero or one in an untrained model.
        tensor += 0.3 * torch.rand(tensor.shape, generator=generator) * (0.01 if name.endswith("weight") else 1)
    steps = EncoderSteps(encoder, layer=1, chunk=10, look=3)
    assert steps.compiled is not None
    state = steps.start(2)
    speech = torch.stack([speechlike(16_000, seed) for seed in (1, 2)])
    for start, valid in ((0, [13, 13]), (10, [13, 4]), (20, [11, 1])):
        waveforms = torch.stack(
            [
                F.pad(row[start * 320 :][: num_samples(count)], (0, num_samples(13) - num_samples(count)))
                for row, count in zip(speech, valid, strict=True)
            ]
        )
        counts = torch.tensor(valid)
        want, after = steps._local(state.statistics, waveforms, counts, length_mask(counts, 13))
        names = ("peak", "weight", "energy", "bands", "squares")
        peak, weight, energy, bands, squares = (getattr(state.statistics, name).split(1) for name in names)
        before = list(zip(peak, weight, energy, bands, squares, strict=True))
        found, sums = steps.compiled.front_end.run(list(waveforms), valid, before, 13, 10)
        torch.testing.assert_close(found, want, atol=2e-5, rtol=2e-5)
        for row, one in enumerate(sums):
            for name, got in zip(names, one, strict=True):
                torch.testing.assert_close(got[0], getattr(after, name)[row], atol=1e-5, rtol=1e-5)
        state = replace(state, statistics=after)


def test_wrong_samples_and_statistics_are_refused() -> None:
    compiled = EncoderSteps(tiny_encoder(config=STREAMING), layer=1, chunk=4, look=0).compiled
    if compiled is None:
        pytest.skip(STEPS.choose()[1])
    bands = STREAMING.conv_channels[0]
    one = torch.zeros(1, dtype=torch.float64)
    heard = (one, one, one, torch.zeros(1, bands, dtype=torch.float64), torch.zeros(1, bands, dtype=torch.float64))
    samples = torch.zeros(num_samples(4))
    with pytest.raises(ValueError, match="1360 samples"):
        compiled.front_end.run([samples[1:]], [4], [heard], 4, 4)
    with pytest.raises(ValueError, match="float64 numbers"):
        compiled.front_end.run([samples], [4], [(*heard[:4], heard[4].float())], 4, 4)


def test_weights_that_change_are_packed_again() -> None:
    encoder = tiny_encoder(config=STREAMING)
    first = EncoderSteps(encoder, layer=2, chunk=4, look=0).compiled
    if first is None:
        pytest.skip(STEPS.choose()[1])
    assert EncoderSteps(encoder, layer=2, chunk=8, look=0).compiled is first
    encoder.layers[1].expand.weight.data[0, 0] += 1
    second = EncoderSteps(encoder, layer=2, chunk=8, look=0).compiled
    assert second is not first
    encoder.front_end.norm.shift.data[0] += 1
    assert EncoderSteps(encoder, layer=2, chunk=8, look=0).compiled is not second
