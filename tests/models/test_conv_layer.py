"""The convolutions of the front end against torch's own."""

import pytest
import torch

from spintok.models.config import EncoderConfig
from spintok.models.conv_layer import ConvLayer
from spintok.models.encoder import random_encoder

SMALL = EncoderConfig(
    conv_channels=(24,) * 7,
    width=32,
    heads=4,
    feed_forward=64,
    layers=3,
    positional_kernel=16,
    positional_groups=4,
)


def test_custom_convolutions() -> None:
    """Other kernels of the same receptive field: shorter than a stride, and not a multiple of it."""
    for kernels, strides in (((10, 15, 9), (5, 8, 8)), ((10, 7, 10), (5, 8, 8))):
        shape = {"conv_channels": [8, 8, 32], "conv_kernels": kernels, "conv_strides": strides}
        config = EncoderConfig.from_dict({**SMALL.to_dict(), **shape, "conv_norm": "layer", "conv_bias": True})
        encoder = random_encoder(config, torch.Generator().manual_seed(0)).eval()
        waveforms = torch.randn(2, 5_000, generator=torch.Generator().manual_seed(0))
        x = waveforms[:, None]
        for layer in encoder.front_end.layers:
            x = torch.nn.functional.conv1d(x, layer.weight.permute(2, 1, 0), layer.bias, stride=layer.stride)
            x = torch.nn.functional.gelu(layer.norm(x.transpose(1, 2))).transpose(1, 2)
        features = encoder.front_end(waveforms, torch.tensor([5_000, 5_000]))
        torch.testing.assert_close(features, x.transpose(1, 2))


@pytest.mark.parametrize("rows", [3, 4, 5, 6, 7, 8, 100, 101, 102, 103])
@pytest.mark.parametrize("bias", [False, True])
def test_convolution_in_pairs(rows: int, bias: bool) -> None:
    """The convolution that shares products between outputs, in float64, against torch's own."""
    layer = ConvLayer(6, 5, 3, 2, bias=bias, norm=False).double()
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 6, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
        expected = torch.nn.functional.conv1d(x.t()[None], layer.weight.permute(2, 1, 0), layer.bias, stride=2)
        torch.testing.assert_close(layer(x), torch.nn.functional.gelu(expected[0].t()))
