"""Speech and a tokenizer for tests: the recordings beside the tests, MFCC, and random codewords."""

from pathlib import Path

import torch

from spintok.codebook import Codebook, CodebookConfig
from spintok.manifest import Utterance
from spintok.mfcc import Mfcc
from spintok.tokenizer import Tokenizer

SPEECH = Path(__file__).parent / "speech"


def voices() -> list[Utterance]:
    """The recordings, each with its speaker."""
    return [Utterance(path.stem, path, path.stem.partition("_")[0]) for path in sorted(SPEECH.glob("*.flac"))]


def mfcc_tokenizer(size: int = 20, seed: int = 0, books: int = 1) -> Tokenizer:
    """MFCC and codewords drawn from the frames of a recording."""
    from spintok.audio import read

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
