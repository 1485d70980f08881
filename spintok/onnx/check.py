"""Whether ONNX Runtime computes the codes of spintok."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from spintok._files import require
from spintok.frames import SAMPLE_RATE
from spintok.tokenizer import Tokenizer

__all__ = ["agreement", "built_in_sample"]


def agreement(content: bytes, tokenizer: Tokenizer, codebook: str, sample: Iterable[Tensor]) -> tuple[int, int]:
    """The number of frames of waveforms (S,) with equal codes, and of all; other lengths count as unequal.

    Raises:
        ValueError: the sample has no frame, or ONNX Runtime cannot run the graph.
    """
    runtime = require("onnxruntime", extra="onnx", purpose="an ONNX graph")
    equal = frames = 0
    try:
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
        for waveform in sample:
            expected = tokenizer.encode(waveform, SAMPLE_RATE, codebook=codebook).codes
            (found,) = session.run(None, {"audio": waveform.numpy()})
            frames += len(expected)
            equal += int((found == expected).sum()) if found.shape == expected.shape else 0
    except Exception as error:
        # The errors of ONNX Runtime have no common class.
        if "onnxruntime" not in type(error).__module__:
            raise
        raise ValueError(f"ONNX Runtime cannot run the graph: {str(error).splitlines()[0][:200]}") from None
    if frames == 0:
        raise ValueError("the sample has no frame: it is empty, or its recordings are too short")
    return equal, frames


def built_in_sample(tokenizer: Tokenizer) -> list[Tensor]:
    """Waveforms of one frame, a second and a bit, and more than a window: harmonics that glide, hiss and pauses."""
    lengths = (tokenizer.grid.reach, 20_011, tokenizer.max_samples + 3 * SAMPLE_RATE + 123)
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(max(lengths), dtype=torch.float64) / SAMPLE_RATE
    pitch = 130 + 40 * (2 * math.pi * 0.31 * time).sin() + 25 * (2 * math.pi * 0.053 * time).sin()
    phase = 2 * math.pi * pitch.cumsum(0) / SAMPLE_RATE
    formants = [
        (500 + 300 * (2 * math.pi * 1.9 * time).sin(), 1.0),
        (1600 + 700 * (2 * math.pi * 1.3 * time).sin(), 0.5),
    ]
    voiced = torch.zeros_like(time)
    for harmonic in range(1, 24):
        near = [gain * (-(((harmonic * pitch - centre) / 180) ** 2)).exp() for centre, gain in formants]
        voiced += (0.02 + torch.stack(near).sum(0)) * (harmonic * phase).sin()
    noise = torch.randn(len(time), generator=generator, dtype=torch.float64)
    # Sounds of some 200 ms: voiced, hissing, or neither.
    turns = (time / 0.21).long() % 5
    signal = torch.where(turns < 3, 0.1 * voiced, torch.where(turns == 3, 0.03 * noise, 0.0)) + 1e-3 * noise
    return [signal[:length].float() for length in lengths]
