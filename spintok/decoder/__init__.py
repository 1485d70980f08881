"""Hear the tokens: codes to acoustic parameters to a waveform."""

from spintok.decoder.decoder import CodebookMismatchError, Decoder, Source
from spintok.decoder.loading import find_decoder, load_decoder, shipped_decoders
from spintok.decoder.network import DecoderConfig
from spintok.decoder.stream import DecoderStream

__all__ = [
    "CodebookMismatchError",
    "Decoder",
    "DecoderConfig",
    "DecoderStream",
    "Source",
    "find_decoder",
    "load_decoder",
    "shipped_decoders",
]
