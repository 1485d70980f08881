"""A streaming encoder step by step: a chunk in, its features out, and a state of fixed size between the steps.

A step computes what ``Encoder.hidden_states(..., chunk=)`` computes for a chunk, up to rounding. All steps have the
same shapes, whatever has been heard, so a stream and a file that is encoded chunk by chunk get the same features bit
for bit. Compiled for a CPU (``spintok.models.compiled_steps``) they get them in any company too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from spintok.masks import length_mask
from spintok.models.compiled_steps import compiled_steps
from spintok.models.encoder import Encoder
from spintok.models.positional import PositionalConv
from spintok.models.running import MELS_PER_FRAME, BandStatistics
from spintok.models.running_log_mel import RunningLogMelFrontEnd

__all__ = ["EncoderSteps", "StepState"]


@dataclass(frozen=True)
class StepState:
    """What B streams remember between two steps.

    Attributes:
        statistics: the statistics of the bands.
        local: (B, kernel // 2, D) the last local features, for the positional convolution.
        keys, values: (layers, B, heads, past, d) float16, of the last frames.
        frames: (B,) int64, how many frames have gone by.
    """

    statistics: BandStatistics
    local: Tensor
    keys: Tensor
    values: Tensor
    frames: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name. A row of a tensor belongs to a stream; ``batch_axis`` tells which axis that is."""
        found = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "statistics"}
        return found | {field.name: getattr(self.statistics, field.name) for field in fields(BandStatistics)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "StepState":
        """The inverse of ``tensors``."""
        statistics = BandStatistics(*(tensors[field.name] for field in fields(BandStatistics)))
        return cls(statistics, *(tensors[field.name] for field in fields(cls) if field.name != "statistics"))

    @staticmethod
    def batch_axis(name: str) -> int:
        """The axis of the streams in the tensor of that name."""
        return 1 if name in ("keys", "values") else 0


class EncoderSteps:
    """Steps of ``chunk`` frames, each computed with ``look`` frames that follow it.

    Args:
        encoder: an encoder that streams, in evaluation mode.
        layer: the last layer to compute.
        chunk: frames that are final after a step.
        look: frames after them that the step hears too; the next step computes them again.

    Attributes:
        frames: those of a step, ``chunk + look``.
        compiled: what ``together`` runs; None where only ``step`` can be called.
    """

    def __init__(self, encoder: Encoder, layer: int, chunk: int, look: int) -> None:
        assert encoder.config.streaming is not None
        assert isinstance(encoder.front_end, RunningLogMelFrontEnd)
        self.encoder = encoder
        self.front_end = encoder.front_end
        self.layer = layer
        self.chunk = chunk
        self.look = look
        self.frames = chunk + look
        self.past = encoder.config.streaming.past
        self.compiled = compiled_steps(encoder, layer)

    def start(self, batch: int) -> StepState:
        """The state of streams that have not begun."""
        config = self.encoder.config
        device = self.front_end.window.device
        shape = (self.layer, batch, config.heads, self.past, config.width // config.heads)
        return StepState(
            BandStatistics.none(batch, config.conv_channels[0], device),
            torch.zeros(batch, config.positional_kernel // 2, config.width, device=device),
            torch.zeros(shape, dtype=torch.float16, device=device),
            torch.zeros(shape, dtype=torch.float16, device=device),
            torch.zeros(batch, dtype=torch.long, device=device),
        )

    def step(
        self, state: StepState, waveforms: Tensor, valid: Tensor, layers: Sequence[int]
    ) -> tuple[list[Tensor], StepState]:
        """Features of the next frames, and the state after the first ``chunk`` of them.

        Args:
            state: the state of B streams. Its keys and values are overwritten.
            waveforms: (B, num_samples(frames)) float32.
            valid: (B,) frames that the waveforms hold; fewer than ``frames`` at the end of a stream only.
            layers: which to return, none above ``layer``.

        Returns:
            Features (B, frames, D) of each layer, arbitrary after ``valid``; and the state.
        """
        encoder = self.encoder
        # A slot without frames attends to itself: without any key the softmax would be 0 / 0.
        mask = length_mask(valid.clamp(min=1), self.frames)
        local, statistics = self._local(state.statistics, waveforms, valid, mask)
        assert isinstance(encoder.positional, PositionalConv)
        x = encoder.transformer_input(local + encoder.positional.after(state.local, local))
        places = torch.arange(self.past, device=x.device)
        mask = torch.cat([places >= self.past - state.frames[:, None], mask], 1)
        found = {0: x}
        for index in range(1, self.layer + 1):
            memory = _Memory(state.keys[index - 1], state.values[index - 1], self.chunk)
            x = encoder.layers[index - 1](x, mask, None, memory)
            if index in layers:
                found[index] = encoder.output(x, index)
        return [found[layer] for layer in layers], self._after(state, statistics, local)

    def together(
        self, states: Sequence[StepState], waveforms: Sequence[Tensor], valid: Sequence[int], layers: Sequence[int]
    ) -> list[tuple[list[Tensor], StepState]]:
        """A ``step`` of each of some streams, in which no stream changes a bit of another.

        ``states`` are of one stream each, ``waveforms`` (num_samples(frames),). ``valid`` is at least 1. Returns
        features (frames, D) of each layer and the state, for each stream.
        """
        assert self.compiled is not None
        heard = [(s.peak, s.weight, s.energy, s.bands, s.squares) for s in (state.statistics for state in states)]
        locals_, after = self.compiled.front_end.run(waveforms, valid, heard, self.frames, self.chunk)
        kernel = self.encoder.config.positional_kernel
        tails = torch.cat([state.local for state in states])
        signal = torch.cat(
            [tails, locals_, locals_.new_zeros(len(states), kernel - 1 - kernel // 2, tails.shape[2])], 1
        )
        positions = self.compiled.positional.run(signal)
        x = self.encoder.transformer_input(locals_ + positions)
        found = {0: x.clone()} if 0 in layers else {}
        keys, values = [state.keys[:, 0] for state in states], [state.values[:, 0] for state in states]
        gone = [int(state.frames) for state in states]
        above = [layer for layer in layers if layer > 0]
        outputs = self.compiled.layers.run(x, keys, values, gone, valid, self.chunk, above)
        found |= {layer: self.encoder.output(output, layer) for layer, output in outputs.items()}
        return [
            (
                [found[layer][row] for layer in layers],
                self._after(state, BandStatistics(*after[row]), locals_[row : row + 1]),
            )
            for row, state in enumerate(states)
        ]

    def _local(
        self, statistics: BandStatistics, waveforms: Tensor, valid: Tensor, mask: Tensor
    ) -> tuple[Tensor, BandStatistics]:
        """Local features (B, frames, D), zero outside of the mask, and the statistics after the chunk."""
        norm = self.front_end.norm
        power = self.front_end.power(waveforms, self.frames)
        heard = length_mask(valid * MELS_PER_FRAME, power.shape[1])
        after = norm.observe(statistics, power, heard)
        rows = norm.normalise(after, power) * norm.scale + norm.shift
        if self.look:
            kept = self.chunk * MELS_PER_FRAME
            after = norm.observe(statistics, power[:, :kept], heard[:, :kept])
        local = self.encoder.project(self.front_end.convolve(rows))
        return local.masked_fill(~mask[:, :, None], 0.0), after

    def _after(self, state: StepState, statistics: BandStatistics, local: Tensor) -> StepState:
        """The state after a chunk with these local features (B, frames, D); keys and values are changed in place."""
        tail = torch.cat([state.local, local[:, : self.chunk]], 1)[:, self.chunk :]
        return StepState(statistics, tail, state.keys, state.values, state.frames + self.chunk)


class _Memory:
    """The past of one layer: hands out its keys and values, and takes those of the chunk in."""

    def __init__(self, keys: Tensor, values: Tensor, chunk: int) -> None:
        self.keys, self.values = keys, values
        self.chunk = chunk

    def __call__(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self._extended(self.keys, k), self._extended(self.values, v)

    def _extended(self, past: Tensor, new: Tensor) -> Tensor:
        batch, heads, size, width = past.shape
        both = new.new_empty(batch, heads, size + new.shape[2], width)
        both[:, :, :size] = past
        both[:, :, size:] = new
        past.copy_(both[:, :, self.chunk : self.chunk + size])
        return both
