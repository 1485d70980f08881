"""Record the codes of the shipped tokenizers: ``python tests/recorded_codes.py`` rewrites ``recorded_codes.npz``.

The codes were recorded before the package was rearranged. Record them again only when a tokenizer's weights or its
definition change on purpose, and say so in the changelog.
"""

from functools import cache
from pathlib import Path

import numpy as np

import spintok

RECORDED = Path(__file__).parent / "recorded_codes.npz"
SPEECH = Path(__file__).parent / "speech"
TOKENIZERS = {
    "dc-spin-10m-en": ("primary", "units-50", "units-500", "auxiliary"),
    "dc-spin-stream-10m-en": ("primary", "units-50", "units-500"),
    "mfcc-kmeans-100": ("primary",),
}
"""The codebooks whose codes are recorded, by tokenizer."""


def synthetic(seconds: float, seed: int) -> np.ndarray:
    """A speech-like waveform, (S,) float32 at 16 kHz: gliding harmonics under drifting resonances, pauses and noise."""
    rng = np.random.default_rng(seed)
    samples = int(seconds * 16000)
    time = np.arange(samples) / 16000
    pitch = 120 + 60 * np.sin(2 * np.pi * 0.31 * time + seed) + 25 * np.sin(2 * np.pi * 1.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / 16000
    first = 500 + 250 * np.sin(2 * np.pi * 2.3 * time + 2 * seed)
    second = 1500 + 600 * np.sin(2 * np.pi * 1.1 * time + seed)
    wave = np.zeros(samples)
    for harmonic in range(1, 30):
        frequency = harmonic * pitch
        gain = sum(np.exp(-(((frequency - centre) / 180) ** 2)) for centre in (first, second, 2600.0))
        wave += (gain + 0.02) * np.sin(harmonic * phase)
    voiced = np.sin(2 * np.pi * 0.8 * time + seed) > -0.4
    breath = rng.standard_normal(samples) * 0.05
    return (0.1 * (wave * voiced + breath)).astype(np.float32)


@cache
def recordings() -> dict[str, str | np.ndarray]:
    """The sample speech, and synthetic recordings of 3 to 70 s, so that some need several chunks."""
    found: dict[str, str | np.ndarray] = {path.stem: str(path) for path in sorted(SPEECH.glob("*.flac"))}
    for index, seconds in enumerate((3.0, 7.7, 14.9, 15.1, 31.0, 70.0)):
        found[f"synthetic_{index}"] = synthetic(seconds, index)
    return found


def record() -> dict[str, np.ndarray]:
    """The code of every frame, by "tokenizer/codebook/recording", and each tokenizer's fingerprint."""
    found: dict[str, np.ndarray] = {}
    for name, codebooks in TOKENIZERS.items():
        tokenizer = spintok.load(name)
        found[f"{name}/fingerprint"] = np.array(tokenizer.fingerprint)
        for key, audio in recordings().items():
            for codebook in codebooks:
                rate = None if isinstance(audio, str) else 16000
                codes = tokenizer.encode(audio, rate, codebook=codebook).codes
                found[f"{name}/{codebook}/{key}"] = codes.astype(np.int16)
    return found


if __name__ == "__main__":
    np.savez_compressed(RECORDED, **record())
