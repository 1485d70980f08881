"""SSL encoders: HuBERT, wav2vec 2.0 and WavLM.

Layer ``n`` is the output of the n-th transformer layer, counted from 1. Layer 0 is the input of the first one: the
projected features plus the positional convolution (and the layer norm, if norms come after the residuals, "post").
With "pre" norms (Large models) the output of every layer is taken before any norm, also that of the last layer, as in
fairseq's ``extract_features``, torchaudio, and ``hidden_states`` of transformers 5. In s3prl, in transformers 4, and in
every ``last_hidden_state``, a final layer norm follows the last layer: ``EncoderConfig.final_norm`` asks for it. SpidR
and DinoSR read the inside of their layers (``EncoderConfig.feed_forward_output``).

The features of an utterance do not depend on its batch: ``spintok.models.conv_frontend`` normalises each waveform over
its own samples, padded frames are zero before the positional convolution, and attention masks them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from spintok.frames import num_frames
from spintok.masks import frame_counts, length_mask, padding_mask, zero_padding
from spintok.models.base import FeatureExtractor
from spintok.models.config import EncoderConfig
from spintok.models.conv_frontend import FrontEnd
from spintok.models.conv_layer import ConvLayer
from spintok.models.log_mel import LogMelFrontEnd
from spintok.models.positional import PositionalConv, PositionalStack
from spintok.models.products import fixed_order, linear
from spintok.models.running_log_mel import RunningLogMelFrontEnd
from spintok.models.statistics import WaveformStatistics
from spintok.models.streaming import chunk_mask
from spintok.models.transformer import RelativePositions, TransformerLayer

__all__ = ["Encoder", "random_encoder"]


class Encoder(FeatureExtractor):
    """An SSL encoder.

    Attributes:
        config: its architecture.
        recompute: whether training computes each layer a second time for its gradient, which saves memory.
    """

    type_name = "ssl"
    context_frames = 250

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        self.grid = config.grid
        self.front_end = _front_end(config)
        channels = config.conv_channels[-1]
        self.feature_norm = nn.LayerNorm(channels, eps=config.norm_eps) if config.feature_norm else None
        self.projection = nn.Linear(channels, config.width) if config.projection else None
        shape = (config.width, config.positional_kernel, config.positional_groups)
        self.positional: PositionalConv | PositionalStack = (
            PositionalStack(*shape, config.positional_stack) if config.positional_stack else PositionalConv(*shape)
        )
        # "post": of the transformer's input; "pre" with final_norm: of the last layer's output.
        has_norm = config.norm_position == "post" or config.final_norm
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps) if has_norm else None
        self.positions = (
            RelativePositions(config.position_buckets, config.position_max_distance, config.heads)
            if config.position_buckets
            else None
        )
        self.layers = nn.ModuleList(
            TransformerLayer(
                config.width,
                config.heads,
                config.feed_forward,
                norm_position=config.norm_position,
                eps=config.norm_eps,
                dropout=config.dropout,
                gated=config.position_buckets > 0,
            )
            for _ in range(config.layers)
        )

    @property
    def num_features(self) -> int:
        """D, the width of the features."""
        return self.config.width

    @property
    def num_layers(self) -> int:
        """The number of transformer layers."""
        return self.config.layers

    def to_config(self) -> dict[str, Any]:
        return self.config.to_dict()

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> "Encoder":
        # On the meta device nothing is allocated, however large the sizes are.
        with torch.device("meta"):
            return cls(EncoderConfig.from_dict(values))

    @classmethod
    def from_state(cls, config: EncoderConfig, state: Mapping[str, Tensor]) -> "Encoder":
        """An encoder in evaluation mode with the given float32 weights.

        Raises:
            ValueError: a weight is missing, unknown or of the wrong shape.
        """
        with torch.device("meta"):
            encoder = cls(config)
        needed = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
        given = {name: tuple(tensor.shape) for name, tensor in state.items()}
        wrong = sorted(name for name in needed.keys() | given.keys() if needed.get(name) != given.get(name))
        if wrong:
            name = wrong[0]
            raise ValueError(
                f"{len(wrong)} weights do not fit the encoder's configuration, the first is {name}: "
                f"needed {needed.get(name, 'nothing')}, given {given.get(name, 'nothing')}"
            )
        encoder.load_state_dict(
            {name: tensor.detach().to(torch.float32) for name, tensor in state.items()}, assign=True
        )
        return encoder.requires_grad_().eval()

    def truncated(self, layers: int) -> "Encoder":
        """A copy, sharing these weights, with only the lowest ``layers`` layers."""
        config = self.config.truncated(layers)
        kept = {
            name: tensor
            for name, tensor in self.state_dict().items()
            if not (name.startswith("layers.") and int(name.split(".")[1]) >= layers)
            and not (name.startswith("norm.") and self.config.final_norm and not config.final_norm)
        }
        return Encoder.from_state(config, kept)

    def hidden_states(
        self,
        waveforms: Tensor,
        lengths: Tensor | None = None,
        *,
        layers: Sequence[int] | None = None,
        statistics: WaveformStatistics | None = None,
        chunk: int | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """As ``FeatureExtractor.hidden_states``. An encoder that streams takes ``chunk``, the frames of a chunk.

        A frame then sees its own chunk and the past of ``StreamingConfig``; without ``chunk`` it sees everything.
        """
        layers = range(self.num_layers + 1) if layers is None else layers
        self.check_layers(layers)
        if chunk is not None and len(waveforms) > 1 and fixed_order(waveforms):
            return self._one_by_one(waveforms, lengths, layers, chunk)
        features, counts = self.local_features(waveforms, lengths, statistics=statistics, chunk=chunk)
        mask = padding_mask(counts, features.shape[1])
        return self.transformer(features, mask, layers=layers, chunk=chunk), counts

    def _one_by_one(
        self, waveforms: Tensor, lengths: Tensor | None, layers: Sequence[int], chunk: int
    ) -> tuple[list[Tensor], Tensor]:
        """What streaming computes, whose attention torch sums in an order that depends on the shape of the batch."""
        batch, samples = waveforms.shape
        if lengths is None:
            lengths = torch.full((batch,), samples, device=waveforms.device)
        frames = num_frames(samples, self.grid)
        out = [waveforms.new_zeros(batch, frames, self.num_features) for _ in layers]
        for index, length in enumerate(lengths.tolist()):
            alone, _ = self.hidden_states(waveforms[index : index + 1, :length], layers=layers, chunk=chunk)
            for whole, part in zip(out, alone, strict=True):
                whole[index, : part.shape[1]] = part[0]
        return out, frame_counts(lengths, self.grid)

    def local_features(
        self,
        waveforms: Tensor,
        lengths: Tensor | None = None,
        *,
        statistics: WaveformStatistics | None = None,
        chunk: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Output of the convolutions and the projection, (B, T, D), zero where padded, and frame counts (B,).

        Masked prediction masks these features before it calls ``transformer``. ``chunk`` is as in ``hidden_states``.
        """
        self._check_chunk(chunk)
        if waveforms.ndim != 2 or not waveforms.is_floating_point():
            raise ValueError(f"waveforms must be (B, S) floats, got {tuple(waveforms.shape)} {waveforms.dtype}")
        batch, samples = waveforms.shape
        if lengths is None:
            lengths = torch.full((batch,), samples, device=waveforms.device)
        elif lengths.shape != (batch,):
            raise ValueError(f"lengths must be ({batch},), got {tuple(lengths.shape)}")
        elif batch > 0:
            lengths = lengths.to(waveforms.device)
            shortest, longest = lengths.min(), lengths.max()
            if bool((shortest < 0) | (longest > samples)):
                raise ValueError(f"lengths must be in 0 ... {samples}, got {int(shortest)} ... {int(longest)}")
            if bool(shortest < samples):
                waveforms = torch.where(length_mask(lengths, samples), waveforms, 0.0)
        features = self.project(self._front(waveforms, lengths, statistics, chunk))
        counts = frame_counts(lengths, self.grid)
        return zero_padding(features, padding_mask(counts, features.shape[1])), counts

    def project(self, features: Tensor) -> Tensor:
        """Local features (B, T, D) from the output (B, T, C) of the front end."""
        if self.feature_norm is not None:
            features = self.feature_norm(features)
        return features if self.projection is None else linear(self.projection, features)

    def _front(
        self, waveforms: Tensor, lengths: Tensor, statistics: WaveformStatistics | None, chunk: int | None
    ) -> Tensor:
        features: Tensor
        if len(waveforms) < 2 or not fixed_order(waveforms):
            if isinstance(self.front_end, RunningLogMelFrontEnd):
                features = self.front_end(waveforms, lengths, chunk=chunk)
            else:
                features = self.front_end(waveforms, lengths, statistics)
            return features
        # One utterance at a time, as on a CPU: its sums have the same shapes in any batch, and it is enough for a GPU.
        found = []
        for index, length in enumerate(lengths.tolist()):
            own = slice(index, index + 1)
            whole = None if statistics is None else statistics[own]
            found.append(self._front(waveforms[own, :length], lengths[own], whole, chunk)[0])
        padded = pad_sequence(found, batch_first=True)
        return F.pad(padded, (0, 0, 0, num_frames(waveforms.shape[1], self.grid) - padded.shape[1]))

    def transformer(
        self, features: Tensor, mask: Tensor | None = None, *, layers: Sequence[int], chunk: int | None = None
    ) -> list[Tensor]:
        """The given layers, each (B, T, D) and zero where padded, from local features (B, T, D).

        ``mask`` (B, T) is True at valid frames; None if nothing is padded. ``chunk`` is as in ``hidden_states``.
        """
        self.check_layers(layers)
        self._check_chunk(chunk)
        if features.shape[0] == 0 or features.shape[1] == 0:
            return [features for _ in layers]
        if isinstance(self.positional, PositionalStack):
            positions = self.positional(features, mask)
        else:
            positions = self.positional(features, chunk)
        x = self.transformer_input(features + positions)
        if self.training and self.config.dropout > 0:
            x = F.dropout(x, self.config.dropout)
        return self.upper(x, mask, above=0, layers=layers, chunk=chunk)

    def transformer_input(self, x: Tensor) -> Tensor:
        """Layer 0 (B, T, D) from the sum of local features and positional convolution."""
        return x if self.norm is None or self.config.final_norm else self.norm(x)

    def upper(
        self, x: Tensor, mask: Tensor | None = None, *, above: int, layers: Sequence[int], chunk: int | None = None
    ) -> list[Tensor]:
        """The given layers, each at least ``above``, from the output (B, T, D) of layer ``above``.

        Training computes the frozen layers without gradient, or only once, and the others here.
        """
        self.check_layers(layers)
        self._check_chunk(chunk)
        if min(layers) < above:
            raise ValueError(f"layers above {above} cannot give layer {min(layers)}")
        found = {above: x} if above in layers else {}
        # Without any key the softmax would be 0 / 0, so an utterance of no frames attends to its padding.
        keys = None if mask is None else mask | ~mask.any(1, keepdim=True)
        if chunk is not None:
            keys = self._visible(keys, x, chunk)
        top = max(layers)
        positions = None if self.positions is None or top == above else self.positions(x.shape[1])
        for index in range(above + 1, top + 1):
            layer, added = self.layers[index - 1], None
            skipped = (
                self.training and self.config.layer_dropout > 0 and bool(torch.rand(()) < self.config.layer_dropout)
            )
            if skipped:
                pass
            elif self.config.feed_forward_output:
                assert isinstance(layer, TransformerLayer)
                x, added = layer.both(x, keys, positions)
            elif self.recompute and torch.is_grad_enabled():
                x = checkpoint(layer, x, keys, positions, use_reentrant=False)
            else:
                x = layer(x, keys, positions)
            if index in layers:
                found[index] = self.output(x, index) if added is None else added
        return [zero_padding(found[index], mask) for index in layers]

    def _visible(self, keys: Tensor | None, x: Tensor, chunk: int) -> Tensor:
        """Mask (B or 1, T, T): the keys that each query sees. Queries of padding see themselves, never nothing."""
        assert self.config.streaming is not None
        frames = x.shape[1]
        visible = chunk_mask(frames, chunk, self.config.streaming.past, x.device)[None]
        if keys is None:
            return visible
        return visible & keys[:, None, :] | torch.eye(frames, dtype=torch.bool, device=x.device)

    def _check_chunk(self, chunk: int | None) -> None:
        if chunk is None:
            return
        if self.config.streaming is None:
            raise ValueError("this encoder needs whole recordings: its configuration has no section streaming")
        if chunk < 1:
            raise ValueError(f"chunk must be at least 1 frame, got {chunk}")

    def output(self, x: Tensor, layer: int) -> Tensor:
        """The features of a layer from its output, both (B, T, D)."""
        if self.norm is None or not self.config.final_norm or layer != self.num_layers:
            return x
        normed: Tensor = self.norm(x)
        return normed

    def statistics(self, blocks: Iterable[Tensor]) -> WaveformStatistics | None:
        if isinstance(self.front_end, RunningLogMelFrontEnd):
            return None
        return self.front_end.stream_statistics(blocks)


def _front_end(config: EncoderConfig) -> FrontEnd | LogMelFrontEnd | RunningLogMelFrontEnd:
    shape = (config.conv_channels, config.conv_kernels, config.conv_strides)
    if config.streaming is not None:
        return RunningLogMelFrontEnd(*shape, bias=config.conv_bias, streaming=config.streaming)
    if config.front_end == "log_mel":
        return LogMelFrontEnd(*shape, bias=config.conv_bias)
    return FrontEnd(
        *shape,
        bias=config.conv_bias,
        group_norm=config.conv_norm == "group",
        waveform_eps=config.waveform_eps if config.normalize_waveform else None,
    )


@torch.no_grad()
def random_encoder(config: EncoderConfig, generator: torch.Generator) -> Encoder:
    """An encoder with random weights, initialised as in the HuBERT recipe.

    Convolutions: Kaiming normal. Projection: uniform within 1 / sqrt(inputs). Positional convolution: normal with
    variance 4 / (kernel width), without weight norm. Transformer: normal with standard deviation 0.02. Biases: 0.
    Source: Hsu et al. 2021, "HuBERT", and its fairseq recipe.
    """
    encoder = Encoder(config)
    for module in encoder.modules():
        if isinstance(module, ConvLayer):
            fan_in = module.weight.shape[0] * module.weight.shape[1]
            module.weight.normal_(0, math.sqrt(2 / fan_in), generator=generator)
        elif isinstance(module, nn.Linear):
            module.weight.normal_(0, 0.02, generator=generator)
            module.bias.zero_()
        elif isinstance(module, RelativePositions):
            module.weight.normal_(0, 0.02, generator=generator)
    if encoder.projection is not None:
        bound = 1 / math.sqrt(config.conv_channels[-1])
        encoder.projection.weight.uniform_(-bound, bound, generator=generator)
    deviation = math.sqrt(4 / (config.positional_kernel * config.width))
    convs = encoder.positional.convs if isinstance(encoder.positional, PositionalStack) else [encoder.positional]
    for conv in convs:
        assert isinstance(conv, nn.Conv1d)
        conv.weight.normal_(0, deviation, generator=generator)
        assert conv.bias is not None
        conv.bias.zero_()
    return encoder
