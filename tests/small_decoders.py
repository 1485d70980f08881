"""Decoders that are small enough for a test."""

from functools import cache

import torch

from spintok.decoder import Decoder, DecoderConfig, Source
from spintok.decoder.acoustics import LOG_F0
from spintok.tokenizer import Tokenizer

SMALL = DecoderConfig(width=8, hidden=16, blocks=2, past=3, future=2, duration_width=4, duration_blocks=1)


@cache
def tiny_decoder(hop: int = 320, reach: int = 400) -> Decoder:
    """A decoder of 7 codewords with random weights and two voices, whose parameters are in the range of speech."""
    torch.manual_seed(0)
    decoder = Decoder(Source("tiny", "f" * 64, "primary", 7, hop, reach), ["anna", "beth"], SMALL, name="tiny")
    _tame(decoder)
    return decoder


def _tame(decoder: Decoder) -> None:
    with torch.no_grad():
        decoder.network.mean[0] = -4
        decoder.network.mean[LOG_F0] = 5
        decoder.network.scale.mul_(0.3)


def untrained_decoder(tokenizer: Tokenizer, codebook: str) -> Decoder:
    """A decoder with random weights of a codebook: it hums."""
    torch.manual_seed(0)
    source = Source(tokenizer.name, tokenizer.fingerprint, codebook, tokenizer.size_of(codebook))
    decoder = Decoder(source, ["nobody"], SMALL, name=f"hum-{codebook}")
    _tame(decoder)
    return decoder
