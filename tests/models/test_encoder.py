"""The encoder against transformers; batches, padding and chunks change nothing."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_features import LARGE, difference, transformers_features, transformers_model
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spintok.frames import num_frames
from spintok.masks import frame_counts
from spintok.models.config import EncoderConfig
from spintok.models.encoder import Encoder, random_encoder
from spintok.models.importers.huggingface import load_huggingface

SMALL = EncoderConfig(
    conv_channels=(24,) * 7,
    width=32,
    heads=4,
    feed_forward=64,
    layers=3,
    positional_kernel=16,
    positional_groups=4,
)
VARIANTS = {
    "base": {},
    "large": {"conv_norm": "layer", "conv_bias": True, "norm_position": "pre", "normalize_waveform": True},
    "wavlm": {"position_buckets": 32, "position_max_distance": 80},
    "wav2vec2": {"normalize_waveform": True, "conv_bias": True},
}


def small(variant: str = "base", seed: int = 0) -> Encoder:
    config = EncoderConfig.from_dict({**SMALL.to_dict(), **VARIANTS[variant]})
    encoder = random_encoder(config, torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return encoder.eval()


def noise(*lengths: int, seed: int = 0) -> list[Tensor]:
    """Waveforms of different loudness and offset, as different recordings have."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, generator=generator) * 0.3 / (i + 1) + 0.02 * i for i, n in enumerate(lengths)]


def codes(features: Tensor) -> Tensor:
    codebook = torch.randn(50, features.shape[-1], generator=torch.Generator().manual_seed(7))
    return (features @ codebook.t()).argmax(-1)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("hubert", {}),
        ("hubert", LARGE),
        ("hubert", {"feat_proj_layer_norm": False, "conv_bias": True}),
        ("wav2vec2", {}),
        ("wavlm", {}),
        ("wavlm", LARGE),
    ],
)
def test_every_layer_equals_transformers(kind: str, changes: dict[str, object], tmp_path: Path) -> None:
    model = transformers_model(kind, **changes)
    model.save_pretrained(tmp_path)
    config, state = load_huggingface(tmp_path)
    encoder = Encoder.from_state(config, state)
    waveforms = noise(400, 5_000, 16_321, 40_000)
    lengths = torch.tensor([len(w) for w in waveforms])
    expected = [transformers_features(model, w, config.normalize_waveform) for w in waveforms]
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            batched, counts = encoder.hidden_states(pad_sequence(waveforms, batch_first=True), lengths)
            for row, waveform in enumerate(waveforms):
                alone, _ = encoder.hidden_states(waveform[None])
                assert len(alone) == len(expected[row]) == config.layers + 1
                for layer, truth in enumerate(expected[row]):
                    assert difference(alone[layer][0], truth) < 1e-5
                    assert difference(batched[layer][row, : counts[row]], truth) < 1e-5


@pytest.mark.parametrize("changes", [{}, {**LARGE, "hidden_size": 1024, "num_attention_heads": 16}])
def test_full_width_equals_transformers(changes: dict[str, object], tmp_path: Path) -> None:
    """The widths of HuBERT Base and Large, with few layers; a bundle of torchaudio has all 12."""
    full = {
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "conv_dim": [512] * 7,
        "num_conv_pos_embeddings": 128,
        "num_conv_pos_embedding_groups": 16,
        "num_hidden_layers": 2,
    }
    torch.manual_seed(0)
    import transformers

    model = transformers.HubertModel(transformers.HubertConfig(**{**full, **changes})).eval()
    model.save_pretrained(tmp_path)
    config, state = load_huggingface(tmp_path)
    encoder = Encoder.from_state(config, state)
    waveform = noise(24_000)[0]
    with torch.inference_mode():
        actual, _ = encoder.hidden_states(waveform[None])
    for features, truth in zip(actual, transformers_features(model, waveform, config.normalize_waveform), strict=True):
        assert difference(features[0], truth) < 1e-5


@settings(max_examples=15, deadline=None)
@given(
    variant=st.sampled_from(sorted(VARIANTS)),
    lengths=st.lists(st.integers(0, 20_000), min_size=2, max_size=5),
    seed=st.integers(0, 1_000),
    grad=st.booleans(),
)
def test_a_batch_changes_no_token(variant: str, lengths: list[int], seed: int, grad: bool) -> None:
    encoder = small(variant)
    waveforms = noise(*lengths, seed=seed)
    padded = pad_sequence(waveforms, batch_first=True, padding_value=float("nan"))
    with torch.set_grad_enabled(grad):
        features, counts = encoder(padded, torch.tensor(lengths))
        assert counts.tolist() == [num_frames(n) for n in lengths]
        assert features.shape == (len(lengths), num_frames(max(lengths)), encoder.config.width)
        for row, waveform in enumerate(waveforms):
            alone, _ = encoder(waveform[None])
            own = features[row, : counts[row]]
            assert not features[row, counts[row] :].any()
            if len(own):
                # Float32 rounding through three layers.
                assert difference(own, alone[0]) < 4e-6
                assert torch.equal(codes(own), codes(alone[0]))


@pytest.mark.parametrize("variant", sorted(VARIANTS))
@pytest.mark.parametrize("grad", [False, True])
def test_nothing_to_encode(variant: str, grad: bool) -> None:
    """Utterances without a frame in a longer batch, and an empty batch."""
    encoder = small(variant)
    with torch.set_grad_enabled(grad):
        features, counts = encoder(torch.randn(3, 1_000), torch.tensor([0, 9, 399]))
        assert features.shape == (3, 2, 32)
        assert not features.any()
        assert counts.tolist() == [0, 0, 0]
        for shape in ((0, 1_000), (2, 0), (0, 0)):
            features, counts = encoder(torch.zeros(shape), torch.zeros(shape[0], dtype=torch.long))
            assert features.shape == (shape[0], num_frames(shape[1]), 32)
            assert counts.tolist() == [0] * shape[0]


def test_masked_norm_matters() -> None:
    """Without masks, padding changes the tokens of a Base encoder."""
    encoder = small()
    short, long = noise(8_000, 32_000)
    padded, _ = encoder(torch.nn.functional.pad(short, (0, len(long) - len(short)))[None])
    alone, counts = encoder(short[None])
    assert difference(padded[0, : counts[0]], alone[0]) > 1e-2


def test_frame_counts() -> None:
    lengths = torch.arange(0, 32_001)
    assert frame_counts(lengths).tolist() == [num_frames(n) for n in range(32_001)]
    config = EncoderConfig.from_dict({**SMALL.to_dict(), "conv_channels": [2] * 7, "width": 4, "heads": 1, "layers": 0})
    encoder = random_encoder(config, torch.Generator().manual_seed(0)).eval()
    for length in [*range(395, 410), *range(715, 725), 1_039, 1_040, 15_999, 16_000, 31_999, 32_000]:
        waveform = torch.randn(1, length, generator=torch.Generator().manual_seed(length))
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                features, counts = encoder(waveform)
        # The formula against torch's own convolutions.
        x = waveform[:, None]
        if length >= 400:
            for kernel, stride in zip(config.conv_kernels, config.conv_strides, strict=True):
                x = torch.nn.functional.conv1d(x, torch.ones(1, 1, kernel), stride=stride)
        expected = x.shape[-1] if length >= 400 else 0
        assert features.shape[1] == int(counts) == num_frames(length) == expected


def test_layers_above_are_not_computed() -> None:
    encoder = small()
    waveform = noise(8_000)[0][None]
    calls: list[int] = []
    for index, layer in enumerate(encoder.layers, start=1):
        layer.register_forward_hook(lambda *_, index=index: calls.append(index))
    encoder(waveform, layer=2)
    assert calls == [1, 2]
    (third, first), _ = encoder.hidden_states(waveform, layers=(3, 1))
    assert torch.equal(third, encoder(waveform)[0])
    assert torch.equal(first, encoder(waveform, layer=1)[0])


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_truncated(variant: str) -> None:
    encoder = small(variant)
    cut = encoder.truncated(2)
    assert cut.config.layers == 2
    assert len(cut.state_dict()) < len(encoder.state_dict())
    waveform = noise(8_000)[0][None]
    assert torch.equal(cut(waveform)[0], encoder(waveform, layer=2)[0])
    with pytest.raises(ValueError, match=r"layers must be in 0 \.\.\. 3"):
        encoder.truncated(4)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_statistics_of_blocks(variant: str) -> None:
    """Blocks of any size give the statistics of the whole waveform, and with them a part gets the same features."""
    encoder = small(variant)
    waveform = noise(30_000)[0] + 0.05
    edges = [0, 0, 1, 9, 10, 14, 2_000, 2_003, 17_777, 30_000]
    blocks = [waveform[a:b] for a, b in pairwise(edges)]
    streamed = encoder.statistics(iter(blocks))
    whole = encoder.front_end.statistics(waveform[None], torch.tensor([len(waveform)]))
    for name in ("samples", "sum", "squares", "patches", "patch_sum", "patch_gram"):
        torch.testing.assert_close(getattr(streamed, name), getattr(whole, name), rtol=1e-12, atol=1e-12)
    # Layer 0 reads 8 frames on each side (the positional kernel is 16).
    features, _ = encoder(waveform[None], layer=0)
    cut, _ = encoder(waveform[None, 20 * 320 : 20 * 320 + 16_000], layer=0, statistics=streamed)
    inner = slice(8, cut.shape[1] - 8)
    assert difference(cut[0, inner], features[0, 20:][: cut.shape[1]][inner]) < 4e-6


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_gradients(variant: str) -> None:
    """The gradients of a padded batch are the sum of those of its utterances, with and without recomputing layers."""
    waveforms = noise(9_000, 4_000)
    lengths = torch.tensor([9_000, 4_000])

    def gradients(encoder: Encoder, batched: bool) -> dict[str, Tensor]:
        encoder.zero_grad()
        if batched:
            encoder(pad_sequence(waveforms, batch_first=True), lengths)[0].square().sum().backward()
        else:
            sum(encoder(w[None])[0].square().sum() for w in waveforms).backward()
        return {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}

    encoder = small(variant)
    alone = gradients(encoder, batched=False)
    batch = gradients(encoder, batched=True)
    encoder.recompute = True
    again = gradients(encoder, batched=True)
    # With a group norm, the first bias cancels and has no gradient.
    assert {name for name, _ in encoder.named_parameters()} - set(alone) <= {"front_end.layers.0.bias"}
    largest = max(float(g.abs().max()) for g in alone.values())
    for name, gradient in alone.items():
        torch.testing.assert_close(batch[name], gradient, rtol=1e-4, atol=1e-5 * largest)
        torch.testing.assert_close(again[name], batch[name])


def test_group_norm_gradient_equals_torch() -> None:
    """The folded group norm against torch's own, values and gradients, in float64."""
    encoder = small()
    first = encoder.front_end.first.double()
    waveform = torch.randn(1, 4_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    statistics = encoder.front_end.statistics(waveform, torch.tensor([4_000]))
    weight, bias = encoder.front_end._first_weights(statistics)
    assert bias is not None
    folded = waveform.unfold(1, 10, 5) @ weight[0] + bias
    folded.pow(3).sum().backward()
    conv = first.weight.detach().permute(2, 1, 0).requires_grad_()
    scale, shift = (p.detach().requires_grad_() for p in first.norm.parameters())
    out = torch.nn.functional.conv1d(waveform[:, None], conv, stride=5)
    out = torch.nn.functional.group_norm(out, len(scale), scale, shift)
    out.pow(3).sum().backward()
    torch.testing.assert_close(folded, out.transpose(1, 2))
    torch.testing.assert_close(first.weight.grad, conv.grad.permute(2, 1, 0))
    torch.testing.assert_close(first.norm.weight.grad, scale.grad)
    torch.testing.assert_close(first.norm.bias.grad, shift.grad)


@pytest.mark.requires_gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_no_attention_that_plans_for_every_shape() -> None:
    """cuDNN's attention takes more than a second for each new shape; torch prefers it on Hopper."""
    encoder = small().cuda()
    waveforms = pad_sequence(noise(8_000, 5_000), batch_first=True).cuda()
    with torch.autocast("cuda", torch.bfloat16), torch.profiler.profile() as profile:
        encoder(waveforms, torch.tensor([8_000, 5_000]).cuda())
    names = {event.key for event in profile.key_averages()}
    assert any("scaled_dot_product" in name for name in names)
    assert not any("cudnn_attention" in name for name in names)


def test_dropout_and_layer_dropout_act_in_training_only() -> None:
    config = EncoderConfig.from_dict({**SMALL.to_dict(), "dropout": 0.5, "layer_dropout": 0.5})
    encoder = random_encoder(config, torch.Generator().manual_seed(0))
    waveform = noise(4_000)[0][None]
    plain = random_encoder(SMALL, torch.Generator().manual_seed(0)).eval()(waveform)[0]
    torch.testing.assert_close(encoder.eval()(waveform)[0], plain)
    torch.manual_seed(0)
    runs = [encoder.train()(waveform)[0] for _ in range(2)]
    assert difference(runs[0], runs[1]) > 1e-2


@pytest.mark.parametrize("variant", sorted(VARIANTS))
@pytest.mark.parametrize("grad", [False, True])
def test_lower_precision(variant: str, grad: bool) -> None:
    """With autocast or weights in bfloat16, features of float32 waveforms stay near those in float32."""
    encoder = small(variant)
    waveform = noise(8_000)[0][None]
    with torch.set_grad_enabled(grad):
        expected, _ = encoder(waveform)
        with torch.autocast("cpu", torch.bfloat16):
            cast, _ = encoder(waveform)
        typed, _ = encoder.bfloat16()(waveform)
    # bfloat16 has 8 bits, and the rounding errors of a few layers add up.
    assert difference(cast, expected) < 0.1
    assert difference(typed, expected) < 0.1


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_gradient_in_bfloat16(variant: str) -> None:
    """Attention is computed differently for training in bfloat16 on a CPU: with padding, with and without positions."""
    encoder = small(variant)
    waveforms = pad_sequence(noise(8_000, 5_000), batch_first=True)
    lengths = torch.tensor([8_000, 5_000])
    weights = [layer.attention.qkv.weight for layer in encoder.layers]
    with torch.autocast("cpu", torch.bfloat16):
        features, _ = encoder(waveforms, lengths)
    rough = torch.autograd.grad(features.square().sum(), weights)
    features, _ = encoder.double()(waveforms.double(), lengths)
    truth = torch.autograd.grad(features.square().sum(), [layer.attention.qkv.weight for layer in encoder.layers])
    for a, b in zip(rough, truth, strict=True):
        # About ten rounding errors of 2^-9 forward and backward, which add up like random steps; times three.
        assert float((a.double() - b).norm() / b.norm()) < 0.03


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_float64_truth(variant: str) -> None:
    """Features in float32 against the same encoder in float64, in evaluation and in training."""
    encoder = small(variant)
    waveforms = torch.stack(noise(20_000, 20_000))
    with torch.no_grad():
        evaluated, _ = encoder(waveforms)
    trained, _ = encoder.train()(waveforms)
    truth, _ = encoder.double()(waveforms.double())
    assert difference(evaluated, truth) < 4e-6
    assert difference(trained, truth) < 4e-6


@torch.no_grad()
def test_transformer_compiles_without_breaks() -> None:
    encoder = small("wavlm")
    lengths = torch.tensor([8_000, 5_000])
    features, counts = encoder.local_features(pad_sequence(noise(8_000, 5_000), batch_first=True), lengths)
    mask = torch.arange(features.shape[1]) < counts[:, None]
    compiled = torch.compile(encoder.transformer, backend="eager", fullgraph=True)
    actual = compiled(features, mask, layers=(1, 3))
    expected = encoder.transformer(features, mask, layers=(1, 3))
    for found, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_random_encoder_is_the_generators() -> None:
    first, second, other = (
        random_encoder(SMALL, torch.Generator().manual_seed(seed)).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["layers.0.expand.weight"], other["layers.0.expand.weight"])
    assert float(first["layers.0.expand.weight"].std()) == pytest.approx(0.02, rel=0.1)
    kernel, inputs, _ = first["front_end.layers.1.weight"].shape
    assert float(first["front_end.layers.1.weight"].std()) == pytest.approx((2 / (kernel * inputs)) ** 0.5, rel=0.1)


def test_input_errors() -> None:
    encoder = small()
    with pytest.raises(ValueError, match="waveforms must be"):
        encoder(torch.zeros(3_000))
    with pytest.raises(ValueError, match="waveforms must be"):
        encoder(torch.zeros(1, 3_000, dtype=torch.int16))
    with pytest.raises(ValueError, match="lengths must be"):
        encoder(torch.zeros(2, 3_000), torch.tensor([3_000]))
    with pytest.raises(ValueError, match=r"lengths must be in 0 \.\.\. 3000"):
        encoder(torch.zeros(1, 3_000), torch.tensor([3_001]))
    with pytest.raises(ValueError, match=r"layers 0 \.\.\. 3"):
        encoder(torch.zeros(1, 3_000), layer=4)
    with pytest.raises(ValueError, match="weights do not fit"):
        Encoder.from_state(SMALL, {})
