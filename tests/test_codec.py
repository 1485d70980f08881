"""Code that was written for transformers' audio codecs, with a tokenizer of spintok."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import save_tiny

import spintok
from spintok.codec import CodecModel
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

RNG = np.random.default_rng(0)
SPEECH = [(RNG.normal(size=n) * 0.1).astype(np.float32) for n in (16_000, 9_999, 24_001)]


def codes_of(feature_extractor: Any, model: Any, speech: list[Any]) -> torch.Tensor:
    """As Mimi's documentation has it."""
    inputs = feature_extractor(
        raw_audio=speech, sampling_rate=feature_extractor.sampling_rate, padding=True, return_tensors="pt"
    )
    return model.encode(inputs["input_values"], inputs["padding_mask"]).audio_codes


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    one = spintok.load(save_tiny(tmp_path / "tiny"))
    torch.manual_seed(2)
    book = Codebook(CodebookConfig("auxiliary", 30, 16, 4, "dot", projection=True))
    return Tokenizer(one.encoder, [one.codebook(), book], layer=3, name="two")


def test_a_script_for_mimi_runs(tokenizer: Tokenizer, tmp_path: Path) -> None:
    small = transformers.MimiConfig(
        hidden_size=64, upsample_groups=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        head_dim=32,
        intermediate_size=32, codebook_size=16, codebook_dim=8, num_quantizers=2, num_filters=4,
        vector_quantization_hidden_dimension=8,
    )  # fmt: skip
    theirs = transformers.MimiModel(small).eval()
    extractor = transformers.EncodecFeatureExtractor(feature_size=1, sampling_rate=24_000)
    with torch.inference_mode():
        assert codes_of(extractor, theirs, SPEECH).shape[:2] == (3, 2)
    CodecModel(tokenizer).save_pretrained(tmp_path / "codec")
    model = CodecModel.from_pretrained(tmp_path / "codec")
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "codec")
    codes = codes_of(extractor, model, SPEECH)
    assert (codes.shape, codes.dtype) == ((3, 2, 74), torch.int64)
    for row, one in enumerate(SPEECH):
        for book, name in enumerate(tokenizer.codebook_names):
            expected = tokenizer.encode(one, 16_000, codebook=name).codes
            np.testing.assert_array_equal(codes[row, book, : len(expected)].numpy(), expected)
    assert (model.config.sampling_rate, model.config.frame_rate, model.config.frame_size) == (16_000, 50, 320)
    assert (model.config.codebook_size, model.config.codebook_sizes, model.config.num_quantizers) == (7, (7, 30), 2)


def test_masks_and_shapes(tokenizer: Tokenizer) -> None:
    model = CodecModel(tokenizer)
    padded = torch.zeros(2, 16_000)
    padded[0], padded[1, :9_999] = torch.from_numpy(SPEECH[0]), torch.from_numpy(SPEECH[1])
    mask = (torch.arange(16_000) < torch.tensor([[16_000], [9_999]])).int()
    codes, frames = model(padded[:, None], mask[:, None])
    assert frames.sum(1).tolist() == [49, 30]
    assert codes[1, :, 30:].eq(0).all()
    assert torch.equal(model.encode(padded, mask, num_quantizers=1)[0], codes[:, :1])
    assert model.encode(padded[:1]).audio_codes_mask.all()
    for values, padding, count, message in (
        (padded[None, None], None, None, "must be .batch, 1, samples"),
        (padded, mask.flip(1), None, "ones before zeros"),
        (padded, mask[:, :-1], None, "shape of the samples"),
        (padded, None, 3, r"in 1 \.\.\. 2, got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            model.encode(values, padding, count)
