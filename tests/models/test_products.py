"""Features and codes of an utterance have the same bits alone and in any batch: the path of a GPU, interpreted."""

from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest
import torch
from small_models import TINY, tiny_encoder
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spintok.models import products
from spintok.models.base import FeatureExtractor
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.config import EncoderConfig
from spintok.models.encoder import Encoder
from spintok.models.mfcc import Mfcc
from spintok.models.reduced import check_precision, reduced

VARIANTS = {
    "base": {},
    "large": {"conv_norm": "layer", "conv_bias": True, "norm_position": "pre", "normalize_waveform": True},
    "wavlm": {"position_buckets": 32, "position_max_distance": 80},
    "log_mel": {
        "front_end": "log_mel",
        "conv_channels": [20, 8],
        "conv_kernels": [240, 2],
        "conv_strides": [160, 2],
    },
}
LENGTHS = [1000, 2700, 399, 400]


def extractor(variant: str) -> FeatureExtractor:
    if variant == "mfcc":
        return Mfcc()
    return tiny_encoder(config=EncoderConfig.from_dict({**TINY.to_dict(), "layers": 1, **VARIANTS[variant]}))


def noise() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, generator=generator) * 0.3 / (i + 1) + 0.02 * i for i, n in enumerate(LENGTHS)]


@pytest.fixture
def on_gpu(interpreted: Callable[..., ModuleType], sum_in_order: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs on a GPU runs here too, with the kernels in Triton's interpreter."""
    pytest.importorskip("triton")
    linear, attention = (interpreted(f"spintok_kernels.{name}.triton") for name in ("linear", "attention"))
    from spintok_kernels.attention import op as attention_op
    from spintok_kernels.linear import op as linear_op

    # Small tiles, so that the small models have several.
    rows, keys = linear.Tile(64, 16, 32), attention.Tile(16, 16)
    monkeypatch.setattr(
        linear_op, "torch_linear", SimpleNamespace(linear=lambda *arguments: linear.linear(*arguments, tile=rows))
    )
    monkeypatch.setattr(
        attention_op, "torch_attention", SimpleNamespace(attend=lambda *args: attention.attend(*args, tile=keys))
    )
    monkeypatch.setattr(products, "_DEVICES", {"cpu"})


@torch.inference_mode()
def features(encoder: FeatureExtractor, waveforms: list[Tensor], **options: int) -> list[Tensor]:
    padded = pad_sequence(waveforms, batch_first=True)
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    (found,), counts = encoder.hidden_states(padded, lengths, layers=[encoder.num_layers], **options)
    return [row[:count] for row, count in zip(found, counts.tolist(), strict=True)]


@pytest.mark.parametrize("variant", [*VARIANTS, "mfcc"])
def test_the_same_function_as_on_a_cpu(variant: str, request: pytest.FixtureRequest) -> None:
    encoder = extractor(variant)
    expected = features(encoder, noise())
    request.getfixturevalue("on_gpu")
    for found, wanted in zip(features(encoder, noise()), expected, strict=True):
        # Two orders of sums in float32, through two layers: a few units in the seventh digit of numbers up to 10.
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("variant", ["base", "wavlm", "log_mel", "mfcc", "base float16"])
def test_the_same_bits_alone_and_in_any_batch(variant: str) -> None:
    name, _, precision = variant.partition(" ")
    encoder = extractor(name)
    if precision:
        assert isinstance(encoder, Encoder)
        encoder = reduced(encoder, check_precision(precision))
    waveforms = noise()
    alone = [features(encoder, [waveform])[0] for waveform in waveforms]
    for order in ([0, 1, 2, 3], [3, 0]):
        for index, found in zip(order, features(encoder, [waveforms[i] for i in order]), strict=True):
            assert torch.equal(found, alone[index])


@pytest.mark.usefixtures("on_gpu")
def test_an_encoder_that_streams_is_given_one_utterance_at_a_time() -> None:
    values = {**TINY.to_dict(), "layers": 1, **VARIANTS["log_mel"], "streaming": {"past": 2}}
    encoder = tiny_encoder(config=EncoderConfig.from_dict(values))
    waveforms = noise()
    for found, waveform in zip(features(encoder, waveforms, chunk=3), waveforms, strict=True):
        assert torch.equal(found, features(encoder, [waveform], chunk=3)[0])


@pytest.mark.usefixtures("on_gpu")
def test_embeddings_have_the_same_bits_alone_and_in_any_batch() -> None:
    book = Codebook(CodebookConfig("primary", 9, 16, 8, "dot", projection=True))
    rows = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = book._project(rows)
        assert torch.equal(book._project(rows[17:19]), whole[17:19])
        torch.testing.assert_close(
            whole, torch.nn.functional.linear(rows, book.projection.weight, book.projection.bias)
        )


def test_training_and_autocast_use_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_DEVICES", {"cpu"})
    x = torch.zeros(1)
    with torch.inference_mode():
        assert products.fixed_order(x)
        assert not products.fixed_order(x.double())
        with torch.autocast("cpu", torch.bfloat16):
            assert not products.fixed_order(x)
    assert not products.fixed_order(x)
