"""The shipped tokenizers give the codes that were recorded before the package was rearranged."""

import numpy as np
import pytest
import torch
from recorded_codes import RECORDED, TOKENIZERS, recordings

import spintok
from spintok.inputs import open_item

NEAR_TIE = 1e-4
"""Codewords whose scores are this close (relative to the best) may swap on a processor that rounds differently.

float32 features of 12 layers differ by about 1e-5 between processors' matrix products.
"""


@pytest.mark.parametrize("name", TOKENIZERS)
def test_shipped_tokenizers_give_the_recorded_codes(name: str) -> None:
    recorded = np.load(RECORDED)
    tokenizer = spintok.load(name)
    assert tokenizer.fingerprint == str(recorded[f"{name}/fingerprint"])
    for key, audio in recordings().items():
        rate = None if isinstance(audio, str) else 16000
        recording = open_item(audio, rate, False, tokenizer.max_samples)
        found = tokenizer.encode_recordings([recording], TOKENIZERS[name])[0]
        for codebook, tokens in found.items():
            expected = recorded[f"{name}/{codebook}/{key}"]
            assert tokens.codes.shape == expected.shape
            for frame in np.flatnonzero(tokens.codes != expected):
                features = _features(tokenizer, recording)[frame]
                assert _margin(tokenizer, codebook, features, int(expected[frame])) < NEAR_TIE, (key, codebook, frame)


def _features(tokenizer, recording) -> torch.Tensor:
    """Features (T, D) of a recording."""
    return torch.cat([part for batch in tokenizer.iter_features([recording]) for part in batch.features])


def _margin(tokenizer, codebook: str, features: torch.Tensor, code: int) -> float:
    """How far the recorded code's distance is behind the best one's, relative to it, in float64."""
    book = tokenizer.codebooks[codebook]
    with torch.no_grad():
        x = features if book.projection is None else book.projection(features)
        x, words = x.double(), book.codewords.double()
        if book.config.metric == "dot":
            scores = words @ x / (words.norm(dim=1) * x.norm())
        else:
            scores = -(words - x).square().sum(1)
        return float((scores.max() - scores[code]) / scores.max().abs())
