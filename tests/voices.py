"""Speech and a tokenizer for tests: the recordings beside the tests, MFCC, and random codewords."""

from pathlib import Path

import torch

from spintok.data.audio import read
from spintok.data.manifest import Utterance
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.config import EncoderConfig
from spintok.models.encoder import random_encoder
from spintok.models.mfcc import Mfcc
from spintok.tokenizer import Tokenizer

SPEECH = Path(__file__).parent / "speech"


def voices() -> list[Utterance]:
    """The recordings, each with its speaker."""
    return [Utterance(path.stem, path, path.stem.partition("_")[0]) for path in sorted(SPEECH.glob("*.flac"))]


def mfcc_tokenizer(size: int = 20, seed: int = 0, books: int = 1) -> Tokenizer:
    """MFCC and codewords drawn from the frames of a recording."""
    waveform = read(voices()[0].path)
    features = Mfcc()(waveform[None], torch.tensor([len(waveform)]))[0][0]
    generator = torch.Generator().manual_seed(seed)
    codebooks = []
    for name in ("primary", "auxiliary")[:books]:
        codebook = Codebook(CodebookConfig(name, size, 39, 39, "l2", projection=False))
        with torch.no_grad():
            codebook.codewords.copy_(features[torch.randperm(len(features), generator=generator)[:size]])
        codebooks.append(codebook)
    return Tokenizer(Mfcc(), codebooks, name=f"mfcc-{size}-{seed}")


def small_encoder() -> Tokenizer:
    """A random encoder of two layers with a codebook on the second."""
    config = EncoderConfig(
        conv_channels=(8,) * 7, width=16, heads=2, feed_forward=32, layers=2, positional_kernel=8, positional_groups=2
    )
    encoder = random_encoder(config, torch.Generator().manual_seed(0)).eval()
    return Tokenizer(encoder, [Codebook(CodebookConfig("primary", 8, 16, 6, "dot", projection=True))], layer=2)
