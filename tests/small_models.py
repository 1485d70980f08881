"""Models that are small enough to train in a test."""

from pathlib import Path

import torch

from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.config import EncoderConfig
from spintok.models.encoder import Encoder, random_encoder
from spintok.tokenizer import Tokenizer

TINY = EncoderConfig(
    conv_channels=(8, 8, 8, 8, 8, 8, 8),
    width=16,
    heads=2,
    feed_forward=32,
    layers=3,
    positional_kernel=8,
    positional_groups=2,
)


def tiny_encoder(seed: int = 0, config: EncoderConfig = TINY) -> Encoder:
    """A small encoder whose weights are at random, biases included."""
    generator = torch.Generator().manual_seed(seed)
    encoder = random_encoder(config, generator)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return encoder.eval()


def save_tiny(folder: Path, config: EncoderConfig = TINY, size: int = 7) -> Path:
    """A tokenizer folder with a small encoder and a random codebook."""
    torch.manual_seed(1)
    book = Codebook(CodebookConfig("primary", size, config.width, 4, "dot", projection=True))
    Tokenizer(tiny_encoder(config=config), [book], layer=config.layers, name="tiny").save(folder)
    return folder


def spin_recipe(start: Path, *, steps: int, workers: int) -> str:
    """A recipe of Spin in which a step takes milliseconds."""
    return f"""
stage = "spin"
name = "test"
start = "{start}"
[[codebooks]]
name = "primary"
size = 6
width = 4
[data]
seconds = 2
max_seconds = 0.5
workers = {workers}
[optimizer]
steps = {steps}
warmup = 1
[loop]
log_every = 1
"""
