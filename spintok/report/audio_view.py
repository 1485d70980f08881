"""A waveform as a page shows it: playable audio, an outline, and a spectrogram."""

import base64
import io

import numpy as np
import soundfile
from numpy.typing import NDArray

from spintok.frames import SAMPLE_RATE
from spintok.models.filterbank import mel_bands

__all__ = ["BANDS", "MEL_RATE", "OUTLINE_RATE", "WAV_SECONDS", "data_uri", "mel_image", "opus_uri", "outline"]

WAV_SECONDS = 60
"""Up to this length the audio is 16-bit wav (2.6 MB a minute), beyond it Ogg Opus (0.25 MB a minute)."""
_OPUS_KBITS = 24

OUTLINE_RATE = 400  # pairs a second
MEL_RATE = 100  # columns a second
BANDS = 64
_RANGE_DB = 70.0
_FFT = 512
_WINDOW = 400
_BLOCK = 3000

Waveform = NDArray[np.float32]


def data_uri(waveform: Waveform) -> tuple[str, str]:
    """The audio as a ``data:`` URI, and the name of its format. Samples beyond full scale are clipped."""
    if len(waveform) > WAV_SECONDS * SAMPLE_RATE:
        return opus_uri(waveform), f"Ogg Opus at {_OPUS_KBITS} kbit/s"
    file = io.BytesIO()
    soundfile.write(file, np.clip(waveform, -1, 1), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return _uri("audio/wav", file), "16-bit wav"


def opus_uri(waveform: Waveform) -> str:
    """The audio as Ogg Opus in a ``data:`` URI. Samples beyond full scale are clipped."""
    file = io.BytesIO()
    # libsndfile maps its compression level from 0 to 1 to 256 down to 6 kbit/s a channel.
    level = (256 - _OPUS_KBITS) / 250
    limited = np.clip(waveform, -1, 1)
    soundfile.write(file, limited, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=level)
    return _uri("audio/ogg", file)


def _uri(kind: str, file: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def outline(waveform: Waveform) -> NDArray[np.int8]:
    """The minimum and maximum of each 1 / OUTLINE_RATE s, scaled to the largest sample: (N, 2) int8."""
    size = SAMPLE_RATE // OUTLINE_RATE
    count = -(-len(waveform) // size)
    pieces = np.pad(waveform, (0, count * size - len(waveform)), mode="edge").reshape(count, size)
    loudest = float(np.abs(waveform).max(initial=0.0)) or 1.0
    return np.rint(np.stack([pieces.min(axis=1), pieces.max(axis=1)], axis=1) / loudest * 127).astype(np.int8)


def mel_image(waveform: Waveform) -> NDArray[np.uint8]:
    """The log-mel spectrogram, (N, BANDS) uint8: 255 is the largest value, 0 is 70 dB or more below it.

    Column i is a Hann window of 25 ms around (i + 1/2) / MEL_RATE s, in mel bands from 20 Hz to 8 kHz.
    """
    hop = SAMPLE_RATE // MEL_RATE
    count = -(-len(waveform) // hop)
    ahead = (_WINDOW - hop) // 2
    padded = np.pad(waveform, (ahead, count * hop - len(waveform) + _WINDOW))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::hop][:count]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(_WINDOW) + 0.5) / _WINDOW)).astype(np.float32)
    bands = mel_bands(BANDS, _FFT).numpy()
    # In blocks, because all spectra of ten minutes would take 250 MB.
    power = np.concatenate(
        [
            np.square(np.abs(np.fft.rfft(windows[i : i + _BLOCK] * hann, n=_FFT))).astype(np.float32) @ bands
            for i in range(0, count, _BLOCK)
        ]
    )
    floor = max(float(power.max()), 1e-12)
    decibels = 10 * np.log10(np.maximum(power / floor, 1e-12))
    return np.rint(np.clip(1 + decibels / _RANGE_DB, 0, 1) * 255).astype(np.uint8)
