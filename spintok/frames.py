"""Samples, frames and seconds, in integers: the arithmetic of HuBERT's convolutions.

The convolutional front end of HuBERT, wav2vec 2.0 and WavLM has kernels 10, 3, 3, 3, 3, 2, 2 and strides
5, 2, 2, 2, 2, 2, 2, without padding. Its nested floors collapse: frame ``i`` reads the samples
``[i * HOP, i * HOP + RECEPTIVE_FIELD)`` and a waveform of ``n`` samples has ``(n - 400) // 320 + 1`` frames.
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

SAMPLE_RATE = 16_000  # samples a second
HOP = 320  # samples from one frame to the next
RECEPTIVE_FIELD = 400  # samples that one frame reads
FRAME_RATE = SAMPLE_RATE // HOP  # frames a second: 50, exactly


def num_frames(num_samples: int) -> int:
    """Frames of a waveform of ``num_samples`` samples; 0 when it is shorter than one receptive field."""
    if num_samples < 0:
        raise ValueError(f"num_samples must be at least 0, got {num_samples}")
    return 0 if num_samples < RECEPTIVE_FIELD else (num_samples - RECEPTIVE_FIELD) // HOP + 1


def num_samples(num_frames: int) -> int:
    """The fewest samples that give ``num_frames`` frames."""
    if num_frames < 0:
        raise ValueError(f"num_frames must be at least 0, got {num_frames}")
    return 0 if num_frames == 0 else (num_frames - 1) * HOP + RECEPTIVE_FIELD


def frames_to_seconds(frames: int) -> float:
    """Seconds that ``frames`` hops last; also the start of frame ``frames``."""
    return frames * HOP / SAMPLE_RATE


def frame_center_seconds(frame: int) -> float:
    """The middle of the receptive field of ``frame``, in seconds: where to look up its phone."""
    return (frame * HOP + RECEPTIVE_FIELD / 2) / SAMPLE_RATE
