"""A streaming encoder made from one that needs whole recordings computes nearly the same."""

import pytest
import torch

from spintok.models.streaming import StreamingConfig
from spintok.train.streaming_start import streaming_start
from tests.models.test_log_mel import CONFIG, speechlike
from tests.small_models import TINY, tiny_encoder


def test_the_start_gives_nearly_the_features_of_the_original() -> None:
    old = tiny_encoder(config=CONFIG)
    speech = [speechlike(length, seed) for seed, length in enumerate((16_000, 24_000, 100, 9_000, 32_000))]
    new = streaming_start(old, speech, StreamingConfig())
    assert not set(new.parameters()) & set(old.parameters())
    with torch.no_grad():
        for seed in (11, 12):
            waveform = speechlike(24_000, seed)[None]
            before, after = old(waveform)[0], new(waveform)[0]
            assert ((after - before).norm() / before.norm()) < 0.35
            norm = new.front_end.norm
            assert norm.prior_variance.min() > 0.1


def test_what_cannot_start() -> None:
    speech = [speechlike(16_000)]
    with pytest.raises(ValueError, match="log_mel"):
        streaming_start(tiny_encoder(config=TINY), speech, StreamingConfig())
    with pytest.raises(ValueError, match="there is none"):
        streaming_start(tiny_encoder(config=CONFIG), [torch.zeros(100)], StreamingConfig())
    with pytest.raises(ValueError, match="only zeros"):
        streaming_start(tiny_encoder(config=CONFIG), [torch.zeros(1_000)], StreamingConfig())
