"""The network of a decoder: codes and a voice to acoustic parameters, and units to durations.

A stack of ConvNeXt blocks (Liu et al. 2022), as in Vocos (Siuzdak 2023). Convolutions look further back than ahead, so
that a stream lags by a bounded time. A block computes only positions whose whole window is given; ``StackStream`` keeps
the inputs that later positions need. A whole recording is one piece of a stream, with zeros on both sides.

The vectors of a frame come from one linear layer, so they jump where the next frame begins, fifty times a second, which
is heard as roughness. The network therefore ends in a moving average, and learns with it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spintok.decoder.acoustics import PARAMETERS, VOICING

__all__ = ["DecoderConfig", "Network", "Smoother", "Stack", "StackStream", "smooth"]


@dataclass(frozen=True)
class DecoderConfig:
    """The size of the network.

    Attributes:
        width: the width of the features between blocks.
        hidden: width within a block.
        blocks: number of blocks from codes to acoustic parameters.
        past, future: frames that the convolution of a block sees before and after its own.
        duration_width, duration_blocks: the same of the stack that predicts durations; its blocks see as many units.
        smoothing: vectors of parameters before and after a vector with which it is averaged (``smooth``).
    """

    width: int = 192
    hidden: int = 576
    blocks: int = 6
    past: int = 5
    future: int = 2
    duration_width: int = 96
    duration_blocks: int = 3
    smoothing: int = 5

    def __post_init__(self) -> None:
        for name in ("width", "hidden", "blocks", "duration_width", "duration_blocks"):
            if not 1 <= getattr(self, name) <= 4096:
                raise ValueError(f"{name} must be in 1 ... 4096, got {getattr(self, name)}")
        for name in ("past", "future", "smoothing"):
            if not 0 <= getattr(self, name) <= 64:
                raise ValueError(f"{name} must be in 0 ... 64, got {getattr(self, name)}")

    @property
    def look_ahead(self) -> int:
        """Frames after a frame on which its parameters depend."""
        return self.blocks * self.future


class Block(nn.Module):
    """A depthwise convolution over time, a layer norm, and a feed-forward layer, added to the input."""

    def __init__(self, width: int, hidden: int, past: int, future: int) -> None:
        super().__init__()
        self.past, self.future = past, future
        self.convolution = nn.Conv1d(width, width, past + 1 + future, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, past + T + future, C) to (B, T, C)."""
        length = x.shape[1] - self.past - self.future
        mixed = self.convolution(x.transpose(1, 2)).transpose(1, 2)
        change: Tensor = self.contract(F.gelu(self.expand(self.norm(mixed))))
        return x[:, self.past : self.past + length] + change


class Stack(nn.Module):
    """Blocks, and a linear layer on their output."""

    def __init__(self, width: int, hidden: int, blocks: int, past: int, future: int, outputs: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, hidden, past, future) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, outputs)

    def each(self) -> list[Block]:
        """The blocks in order."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, C) to (B, T, outputs); ``mask`` (B, T) is False where padded, which counts as beyond the end."""
        for block in self.each():
            if mask is not None:
                x = x * mask[:, :, None]
            x = block(F.pad(x, (0, 0, block.past, block.future)))
        found: Tensor = self.output(self.norm(x))
        return found


class StackStream:
    """A stack applied to features that come in pieces."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        width = stack.output.in_features
        device = stack.output.weight.device
        self._waiting = [torch.zeros(1, block.past, width, device=device) for block in stack.each()]

    def push(self, x: Tensor, *, last: bool = False) -> Tensor:
        """The next outputs (1, T', outputs) for the next features (1, T, C); with ``last``, all that are left."""
        for i, block in enumerate(self._stack.each()):
            x = torch.cat([self._waiting[i], x], 1)
            if last:
                x = F.pad(x, (0, 0, 0, block.future))
            window = block.past + block.future
            self._waiting[i] = x[:, max(0, x.shape[1] - window) :]
            x = block(x) if x.shape[1] > window else x[:, :0]
        found: Tensor = self._stack.output(self._stack.norm(x))
        return found


def smooth(values: Tensor, radius: int, mask: Tensor | None = None) -> Tensor:
    """Each of the vectors (B, N, C) averaged with ``radius`` before and after it, under a Hann window.

    What lies beyond the ends, or where ``mask`` (B, N) is False, has no weight.
    """
    if not radius or not values.shape[1]:
        return values
    window = torch.hann_window(2 * radius + 3, periodic=False, device=values.device, dtype=values.dtype)[1:-1]
    present = torch.ones_like(values[:, :, 0]) if mask is None else mask.to(values.dtype)
    # The vectors that each window covers, from radius before to radius after: (B, N, C, 2 * radius + 1).
    around = F.pad(values * present[:, :, None], (0, 0, radius, radius)).unfold(1, len(window), 1)
    weights = F.pad(present, (radius, radius)).unfold(1, len(window), 1) @ window
    return (around @ window) / weights.clamp(min=window[0])[:, :, None]


class Smoother:
    """``smooth`` applied to vectors that come in pieces."""

    def __init__(self, radius: int) -> None:
        self._radius = radius
        self._waiting: Tensor | None = None
        self._before = 0

    def push(self, values: Tensor, *, last: bool = False) -> Tensor:
        """The next averages (1, N', C) for the next vectors (1, N, C); with ``last``, all that are left."""
        given = values if self._waiting is None else torch.cat([self._waiting, values], 1)
        end = given.shape[1] - (0 if last else self._radius)
        found = smooth(given, self._radius)[:, self._before : max(end, self._before)]
        start = max(0, self._before + found.shape[1] - self._radius)
        self._before += found.shape[1] - start
        self._waiting = given[:, start:]
        return found


class Network(nn.Module):
    """Codes and voices to acoustic parameters and durations.

    Args:
        config: the sizes.
        codes: K, the number of codewords.
        voices: the number of voices.
        steps: vectors of acoustic parameters for each frame.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, config: DecoderConfig, codes: int, voices: int, steps: int) -> None:
        super().__init__()
        self.config = config
        self.steps = steps
        self.codes = nn.Embedding(codes, config.width)
        self.voices = nn.Embedding(voices, config.width)
        self.stack = Stack(config.width, config.hidden, config.blocks, config.past, config.future, steps * PARAMETERS)
        narrow = config.duration_width
        self.units = nn.Embedding(codes, narrow)
        self.unit_voices = nn.Embedding(voices, narrow)
        self.durations = Stack(narrow, 3 * narrow, config.duration_blocks, config.past, config.future, 1)
        # Of each parameter over the training speech: the stack predicts standardized values.
        self.register_buffer("mean", torch.zeros(PARAMETERS))
        self.register_buffer("scale", torch.ones(PARAMETERS))

    def forward(self, codes: Tensor, voices: Tensor, mask: Tensor | None = None) -> Tensor:
        """Standardized parameters (B, steps * T, PARAMETERS) of codes (B, T) in voices (B,); voicing as a logit."""
        fine = None if mask is None else mask.repeat_interleave(self.steps, 1)
        return smooth(self.vectors(self.stack(self.embed(codes, voices), mask)), self.config.smoothing, fine)

    def embed(self, codes: Tensor, voices: Tensor) -> Tensor:
        """The input (B, T, width) of the stack."""
        embedded: Tensor = self.codes(codes) + self.voices(voices)[:, None]
        return embedded

    def log_durations(self, units: Tensor, voices: Tensor, mask: Tensor | None = None) -> Tensor:
        """The logarithm (B, R) of the expected duration in frames of each unit of (B, R)."""
        embedded = self.units(units) + self.unit_voices(voices)[:, None]
        found: Tensor = self.durations(embedded, mask)
        return found[:, :, 0]

    def vectors(self, outputs: Tensor) -> Tensor:
        """Outputs (B, T, steps * PARAMETERS) of the stack as vectors (B, steps * T, PARAMETERS), not smoothed yet."""
        return outputs.reshape(outputs.shape[0], self.steps * outputs.shape[1], PARAMETERS)

    def parameters_of(self, vectors: Tensor) -> Tensor:
        """Parameters (N, PARAMETERS) from standardized ones (1, N, PARAMETERS); voicing in [0, 1]."""
        values = vectors[0] * self.scale + self.mean
        values[:, VOICING] = vectors[0, :, VOICING].sigmoid()
        return values
