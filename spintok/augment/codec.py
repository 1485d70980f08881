"""Lossy compression: encode a waveform with an Ogg codec and decode it again."""

import io

import soundfile
import torch
from torch import Tensor
from torch.nn import functional as F

from spintok.frames import SAMPLE_RATE

__all__ = ["opus", "vorbis"]


def opus(waveform: Tensor, kbit: float) -> Tensor:
    """A waveform (S,), float32 at 16 kHz, after Ogg Opus at ``kbit`` kbit/s, from 6 to 256: (S,)."""
    # libsndfile maps compression levels from 0 to 1 linearly to 256 to 6 kbit/s a channel.
    return _round_trip(waveform, "OPUS", (256 - kbit) / 250)


def vorbis(waveform: Tensor, quality: float) -> Tensor:
    """A waveform (S,), float32 at 16 kHz, after Ogg Vorbis at ``quality`` from 0 (worst) to 1: (S,)."""
    return _round_trip(waveform, "VORBIS", 1 - quality)


def _round_trip(waveform: Tensor, subtype: str, compression: float) -> Tensor:
    file = io.BytesIO()
    samples = waveform.clamp(-1, 1).numpy()
    soundfile.write(file, samples, SAMPLE_RATE, format="OGG", subtype=subtype, compression_level=compression)
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    missing = max(0, len(waveform) - len(decoded))
    return F.pad(torch.from_numpy(decoded), (0, missing))[: len(waveform)]
