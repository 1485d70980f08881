"""Small tokenizers that stream, and speech for them."""

from functools import cache

import numpy as np
import torch

from spintok.models.base import FeatureExtractor
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.mfcc import Mfcc
from spintok.tokenizer import Tokenizer
from tests.models.test_log_mel import CONFIG, speechlike
from tests.models.test_streaming import STREAMING
from tests.small_models import tiny_encoder

KINDS = ("streaming", "windows", "mfcc")


@cache
def tokenizer(kind: str) -> Tokenizer:
    """A tokenizer with two codebooks: trained to stream, so far as random weights are; or of an encoder that is not."""
    encoder: FeatureExtractor
    match kind:
        case "streaming":
            encoder = tiny_encoder(config=STREAMING)
        case "windows":
            encoder = tiny_encoder(config=CONFIG)
        case _:
            encoder = Mfcc()
    torch.manual_seed(1)
    books = [
        Codebook(CodebookConfig(name, size, encoder.num_features, 8, "dot", projection=True))
        for name, size in (("primary", 20), ("coarse", 5))
    ]
    return Tokenizer(encoder, books, name=kind)


def speech(samples: int, seed: int = 0) -> np.ndarray:
    """(samples,) float32."""
    return speechlike(samples, seed).numpy()
