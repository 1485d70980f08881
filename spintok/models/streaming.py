"""How an encoder hears speech while it arrives: chunk by chunk, each with a bounded past.

A frame sees its own chunk and the past, never what comes after the chunk: the attention by a mask, the positional
convolution because its taps end with the chunk, and the normalisation because its statistics run
(``spintok.models.running``). The same weights serve every size of chunk. "Full context" is one chunk that holds
everything.

Sources: Zhang et al. 2020, "Unified Streaming and Non-streaming Two-pass End-to-end Model for Speech Recognition" (U2),
for masks with chunks of random size; Li et al. 2023, "Dynamic Chunk Convolution", for convolutions cut at the chunk.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

__all__ = ["StreamingConfig", "chunk_mask"]


@dataclass(frozen=True)
class StreamingConfig:
    """What an encoder that streams remembers; 50 frames a second.

    Attributes:
        past: frames before its chunk that a frame attends to. Through the layers it hears further back.
        prior: the weight of the prior in the statistics of each band, in seconds of loud speech.
        level_prior: the same for the level, which is to drop out sooner.
        half_life: seconds after which what was heard counts half.
        floor: added to the energy of each band, relative to the level of the speech.

    Raises:
        ValueError: a value has the wrong type or is out of range.
    """

    past: int = 150
    prior: float = 1.0
    level_prior: float = 0.05
    half_life: float = 30.0
    floor: float = 1e-5

    def __post_init__(self) -> None:
        if not isinstance(self.past, int) or isinstance(self.past, bool) or not 0 <= self.past <= 1 << 20:
            raise ValueError(f"past must be a number of frames, 0 ... {1 << 20}, got {str(self.past)[:80]}")
        for name, most in (("prior", 1e4), ("level_prior", 1e4), ("half_life", 1e6), ("floor", 1.0)):
            value = getattr(self, name)
            # NaN fails every comparison.
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= most:
                raise ValueError(f"{name} must be above 0 and at most {most:g}, got {str(value)[:80]}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "StreamingConfig":
        """The configuration from the values of ``asdict``. Raises ``ValueError`` for an unknown field."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"unknown field of streaming {', '.join(unknown)}: written by a newer spintok?")
        return cls(**values)


def chunk_mask(frames: int, chunk: int, past: int, device: torch.device) -> Tensor:
    """Mask (frames, frames), True where a query (row) sees a key: its own chunk, and ``past`` frames before that."""
    frame = torch.arange(frames, device=device)
    start = frame.div(chunk, rounding_mode="floor")[:, None] * chunk
    return (frame >= start - past) & (frame < start + chunk)
