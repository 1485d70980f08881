"""On a real GPU: codes do not depend on the batch, on its order, or on the caller's precision switches."""

import random

import pytest
import torch

from spintok.data.audio import Recording
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.config import EncoderConfig
from spintok.models.encoder import random_encoder
from spintok.tokenizer import Tokenizer

pytestmark = [
    pytest.mark.requires_gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.slow
@pytest.mark.parametrize("wavlm", [False, True])
def test_a_million_codes_do_not_depend_on_the_batch(wavlm: bool) -> None:
    """A random HuBERT or WavLM Base up to layer 6 and 2,000 codewords, which are random, so many rows are close."""
    config = EncoderConfig(layers=6, position_buckets=320 if wavlm else 0)
    torch.manual_seed(0)
    book = Codebook(CodebookConfig("primary", 2000, 768, 256, "dot", projection=True))
    tokenizer = Tokenizer(random_encoder(config, torch.Generator().manual_seed(0)), [book]).cuda()
    draw = random.Random(0)
    waveforms = []
    while sum(map(len, waveforms)) < 1_000_000 * 320:
        waveforms.append(torch.randn(int(min(20, draw.lognormvariate(1.5, 0.8)) * 16_000) + 400) * draw.random())
    recordings = [Recording(waveform, lambda: iter(())) for waveform in waveforms]
    alone = [tokenizer.encode_recordings([recording])[0]["primary"].codes.tolist() for recording in recordings]
    for seconds in (30.0, 400.0):
        order = list(range(len(recordings)))
        draw.shuffle(order)
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        torch.backends.cudnn.benchmark = True
        try:
            with torch.autocast("cuda", torch.bfloat16):
                found = tokenizer.encode_recordings([recordings[i] for i in order], batch_seconds=seconds)
        finally:
            torch.backends.cuda.matmul.fp32_precision = "none"
            torch.backends.cudnn.benchmark = False
        differ = sum(
            a != b
            for i, tokens in zip(order, found, strict=True)
            for a, b in zip(tokens["primary"].codes.tolist(), alone[i], strict=True)
        )
        assert differ == 0
