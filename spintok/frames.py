"""Conversions between samples, frames and seconds, in integers.

HuBERT, wav2vec 2.0 and WavLM start with unpadded convolutions of kernels 10, 3, 3, 3, 3, 2, 2 and strides
5, 2, 2, 2, 2, 2, 2. Together they act as one window: frame ``i`` reads the samples
``[i * HOP, i * HOP + RECEPTIVE_FIELD)``, so a waveform of ``n`` samples has ``(n - 400) // 320 + 1`` frames.
"""

__all__ = [
    "FRAME_RATE",
    "HOP",
    "RECEPTIVE_FIELD",
    "SAMPLE_RATE",
    "frame_center_seconds",
    "frames_to_seconds",
    "num_frames",
    "num_samples",
]

SAMPLE_RATE = 16_000  # samples per second
HOP = 320  # samples from one frame to the next
RECEPTIVE_FIELD = 400  # samples that one frame reads
FRAME_RATE = SAMPLE_RATE // HOP  # frames per second: exactly 50


def num_frames(num_samples: int) -> int:
    """Number of frames of a waveform of ``num_samples`` samples; 0 if it is shorter than one receptive field."""
    if num_samples < 0:
        raise ValueError(f"num_samples must be at least 0, got {num_samples}")
    return 0 if num_samples < RECEPTIVE_FIELD else (num_samples - RECEPTIVE_FIELD) // HOP + 1


def num_samples(num_frames: int) -> int:
    """The smallest number of samples that gives ``num_frames`` frames."""
    if num_frames < 0:
        raise ValueError(f"num_frames must be at least 0, got {num_frames}")
    return 0 if num_frames == 0 else (num_frames - 1) * HOP + RECEPTIVE_FIELD


def frames_to_seconds(frames: int) -> float:
    """Duration of ``frames`` hops in seconds, which is also the start time of frame ``frames``."""
    return frames * HOP / SAMPLE_RATE


def frame_center_seconds(frame: int) -> float:
    """Centre of the receptive field of ``frame`` in seconds: the time at which to look up its phone."""
    return (frame * HOP + RECEPTIVE_FIELD / 2) / SAMPLE_RATE
