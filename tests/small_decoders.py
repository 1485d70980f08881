"""Decoders that are small enough for a test."""

from functools import cache

import torch

from spintok.decoder import Decoder, DecoderConfig, Source
from spintok.decoder.acoustics import LOG_F0

SMALL = DecoderConfig(width=8, hidden=16, blocks=2, past=3, future=2, duration_width=4, duration_blocks=1)


@cache
def tiny_decoder(hop: int = 320, reach: int = 400) -> Decoder:
    """A decoder of 7 codewords with random weights and two voices, whose parameters are in the range of speech."""
    torch.manual_seed(0)
    decoder = Decoder(Source("tiny", "f" * 64, "primary", 7, hop, reach), ["anna", "beth"], SMALL, name="tiny")
    with torch.no_grad():
        decoder.network.mean[0] = -4
        decoder.network.mean[LOG_F0] = 5
        decoder.network.scale.mul_(0.3)
    return decoder
