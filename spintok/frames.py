"""Conversions between samples, frames and seconds, in integers.

HuBERT, wav2vec 2.0 and WavLM start with unpadded convolutions of kernels 10, 3, 3, 3, 3, 2, 2 and strides
5, 2, 2, 2, 2, 2, 2. Together they act as one window: frame ``i`` reads the samples
``[i * HOP, i * HOP + RECEPTIVE_FIELD)``, so a waveform of ``n`` samples has ``(n - 400) // 320 + 1`` frames. Encoders
with other convolutions have another ``FrameGrid``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "FRAME_RATE",
    "GRID",
    "HOP",
    "RECEPTIVE_FIELD",
    "SAMPLE_RATE",
    "FrameGrid",
    "frame_center_seconds",
    "frames_to_seconds",
    "num_frames",
    "num_samples",
]

SAMPLE_RATE = 16_000  # samples per second
HOP = 320  # samples from one frame of HuBERT to the next
RECEPTIVE_FIELD = 400  # samples that one frame of HuBERT reads
FRAME_RATE = SAMPLE_RATE // HOP  # frames of HuBERT per second: exactly 50


@dataclass(frozen=True)
class FrameGrid:
    """Where the frames of an encoder lie: frame ``i`` reads the samples ``[i * hop, i * hop + reach)``.

    Attributes:
        hop: samples from one frame to the next.
        reach: samples that one frame reads.

    Raises:
        ValueError: the frames per second are not a whole number, or a frame reads less than a hop.
    """

    hop: int = HOP
    reach: int = RECEPTIVE_FIELD

    def __post_init__(self) -> None:
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in (self.hop, self.reach)):
            raise ValueError(f"the hop and reach of frames are integers, got {self.hop!r:.80} and {self.reach!r:.80}")
        if self.hop < 1 or SAMPLE_RATE % self.hop or not self.hop <= self.reach <= 100 * SAMPLE_RATE:
            raise ValueError(
                f"frames that step by {self.hop} samples and read {self.reach}: spintok needs a whole number of frames "
                f"per second of {SAMPLE_RATE} samples, and frames that read at least one step"
            )

    @classmethod
    def of_convolutions(cls, kernels: Sequence[int], strides: Sequence[int]) -> "FrameGrid":
        """The grid of unpadded convolutions that follow each other. Raises ``ValueError``."""
        reach, hop = 1, 1
        for kernel, stride in zip(kernels, strides, strict=True):
            reach, hop = reach + (kernel - 1) * hop, hop * stride
        return cls(hop, reach)

    @property
    def rate(self) -> int:
        """Frames per second."""
        return SAMPLE_RATE // self.hop


GRID = FrameGrid()
"""The grid of HuBERT: 50 frames per second."""


def num_frames(num_samples: int, grid: FrameGrid = GRID) -> int:
    """Number of frames of a waveform of ``num_samples`` samples; 0 if it is shorter than one receptive field."""
    if num_samples < 0:
        raise ValueError(f"num_samples must be at least 0, got {num_samples}")
    return 0 if num_samples < grid.reach else (num_samples - grid.reach) // grid.hop + 1


def num_samples(num_frames: int, grid: FrameGrid = GRID) -> int:
    """The smallest number of samples that gives ``num_frames`` frames."""
    if num_frames < 0:
        raise ValueError(f"num_frames must be at least 0, got {num_frames}")
    return 0 if num_frames == 0 else (num_frames - 1) * grid.hop + grid.reach


def frames_to_seconds(frames: int, grid: FrameGrid = GRID) -> float:
    """Duration of ``frames`` hops in seconds, which is also the start time of frame ``frames``."""
    return frames * grid.hop / SAMPLE_RATE


def frame_center_seconds(frame: int, grid: FrameGrid = GRID) -> float:
    """Centre of the receptive field of ``frame`` in seconds: the time at which to look up its phone."""
    return (frame * grid.hop + grid.reach / 2) / SAMPLE_RATE
