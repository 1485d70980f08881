"""SSL encoders (HuBERT, wav2vec 2.0, WavLM): waveforms to features, stopping at the layer asked for.

Layers are counted as everywhere in spintok: layer ``n`` is the output of the n-th transformer layer, from 1,
    and layer 0 is the transformer's input, after the positional convolution (and, with "post" norms, its
    layer norm). With "pre" norms (Large models) every layer is raw, the last one too, as in fairseq's
    ``extract_features``, torchaudio's, and the ``hidden_states`` of transformers 5; s3prl, transformers 4 and
    every ``last_hidden_state`` have a last layer norm after the last layer, which belongs to no layer.

An utterance's features do not depend on what it is batched with: see ``spintok.models.conv_frontend`` for the
normalisation; padded frames are zero before the positional convolution and masked as keys of the attention.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from spintok.frames import HOP, RECEPTIVE_FIELD
from spintok.models.conv_frontend import ConvLayer, FrontEnd, Statistics, check_geometry
from spintok.models.log_mel import LogMelFrontEnd
from spintok.models.positional import PositionalConv
from spintok.models.transformer import NormPosition, RelativePositions, TransformerLayer

__all__ = ["Encoder", "EncoderConfig", "frame_lengths", "frame_mask", "random_encoder"]


@dataclass(frozen=True)
class EncoderConfig:
    """The architecture of an encoder; the defaults are HuBERT Base.

    Attributes:
        front_end: "waveform" convolves samples, as HuBERT does. In "log_mel" the first of the convolutions is a bank
            of filters that is not trained: ``conv_channels[0]`` mel bands, from windows of ``conv_kernels[0]`` samples
            every ``conv_strides[0]`` (``spintok.models.log_mel``); ``conv_norm`` is "group".
        conv_channels, conv_kernels, conv_strides: of each convolution of the front end.
        conv_bias: whether these convolutions have a bias.
        conv_norm: "group" normalises the first convolution over time (Base), "layer" normalises every
            convolution over channels (Large).
        feature_norm: whether a layer norm comes before the projection to ``width``.
        projection: whether there is a projection; without it the last ``conv_channels`` is ``width``.
        normalize_waveform: bring each waveform to zero mean and unit variance first.
        waveform_eps: added to that variance: 1e-7 in Hugging Face's processors, 1e-5 in fairseq, s3prl and
            torchaudio.
        width, heads, feed_forward, layers: of the transformer.
        norm_position: layer norms after each residual ("post", Base) or before each block ("pre", Large).
        positional_kernel, positional_groups: of the positional convolution.
        position_buckets: rows of WavLM's relative position bias; 0 for a model without it.
        position_max_distance: frames from which on the bias no longer changes.
        norm_eps: of the transformer's layer norms.
        dropout: in training, on residual branches and the transformer's input.
        layer_dropout: in training, the chance to skip a layer.
    """

    front_end: Literal["waveform", "log_mel"] = "waveform"
    conv_channels: tuple[int, ...] = (512,) * 7
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    conv_norm: Literal["group", "layer"] = "group"
    feature_norm: bool = True
    projection: bool = True
    normalize_waveform: bool = False
    waveform_eps: float = 1e-7
    width: int = 768
    heads: int = 12
    feed_forward: int = 3072
    layers: int = 12
    norm_position: NormPosition = "post"
    positional_kernel: int = 128
    positional_groups: int = 16
    position_buckets: int = 0
    position_max_distance: int = 800
    norm_eps: float = 1e-5
    dropout: float = 0.0
    layer_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("conv_channels", "conv_kernels", "conv_strides"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not len(self.conv_channels) == len(self.conv_kernels) == len(self.conv_strides) > 0:
            raise ValueError("conv_channels, conv_kernels and conv_strides must have the same length")
        check_geometry(self.conv_kernels, self.conv_strides)
        sizes = (*self.conv_channels, self.width, self.heads, self.feed_forward, self.positional_kernel)
        if min(sizes) < 1 or self.positional_groups < 1 or self.layers < 0 or self.position_buckets < 0:
            raise ValueError(f"sizes must be positive, got {self}")
        if self.width % self.heads or self.width % self.positional_groups:
            raise ValueError(
                f"width {self.width} must be a multiple of heads {self.heads} "
                f"and of positional_groups {self.positional_groups}"
            )
        if not self.projection and self.conv_channels[-1] != self.width:
            raise ValueError(f"without a projection the last of conv_channels must be width {self.width}")
        if self.conv_norm not in ("group", "layer"):
            raise ValueError(f'conv_norm is "group" or "layer", got {self.conv_norm!r}')
        if self.front_end not in ("waveform", "log_mel"):
            raise ValueError(f'front_end is "waveform" or "log_mel", got {self.front_end!r}')
        if self.front_end == "log_mel" and (self.conv_norm != "group" or self.normalize_waveform):
            raise ValueError(
                'front_end "log_mel" normalises its bands: conv_norm is "group", normalize_waveform is false'
            )
        if self.norm_position not in ("post", "pre"):
            raise ValueError(f'norm_position is "post" or "pre", got {self.norm_position!r}')
        if not (0 <= self.dropout < 1 and 0 <= self.layer_dropout < 1):
            raise ValueError("dropout and layer_dropout must be in [0, 1)")

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON holds."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EncoderConfig":
        """The inverse of ``to_dict``; missing fields take their defaults.

        Raises:
            ValueError: a field that no encoder has, or an impossible value.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"unknown encoder field {', '.join(unknown)}: written by a newer spintok?")
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"a value of the encoder's configuration has the wrong type: {error}") from error

    def truncated(self, layers: int) -> "EncoderConfig":
        """The same with only the lowest ``layers`` layers, whose outputs stay the same.

        Raises:
            ValueError: there are not so many.
        """
        if not 0 <= layers <= self.layers:
            raise ValueError(f"layers must be in 0 ... {self.layers}, got {layers}")
        return replace(self, layers=layers)


class Encoder(nn.Module):
    """An SSL encoder. ``recompute`` = True saves memory in training by computing each layer twice."""

    context_frames = 250
    """Frames to read on either side of a window of a long recording (``spintok.chunking``)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        self.front_end = _front_end(config)
        channels = config.conv_channels[-1]
        self.feature_norm = nn.LayerNorm(channels, eps=config.norm_eps) if config.feature_norm else None
        self.projection = nn.Linear(channels, config.width) if config.projection else None
        self.positional = PositionalConv(config.width, config.positional_kernel, config.positional_groups)
        has_norm = config.norm_position == "post"
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

    @classmethod
    def from_state(cls, config: EncoderConfig, state: Mapping[str, Tensor]) -> "Encoder":
        """An encoder in evaluation mode with the given float32 weights.

        Raises:
            ValueError: weights are missing, superfluous or of the wrong shape.
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
        }
        return Encoder.from_state(config, kept)

    def forward(
        self,
        waveforms: Tensor,
        lengths: Tensor | None = None,
        *,
        layer: int | None = None,
        statistics: Statistics | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Features of one layer.

        Args:
            waveforms: (B, S) float32 at 16 kHz; what lies past an utterance's length is ignored.
            lengths: (B,) int64, samples of each utterance; None when nothing is padded.
            layer: 0 ... ``config.layers``; the last by default. Layers above it are not computed.
            statistics: of the whole files, when the waveforms are cuts of them.

        Returns:
            features (B, T, D), zero where padded, and frame lengths (B,); an utterance shorter than 400
            samples has 0 frames.

        Raises:
            ValueError: wrong shapes, lengths past S, or no such layer.
        """
        features, counts = self.hidden_states(
            waveforms, lengths, layers=[self.config.layers if layer is None else layer], statistics=statistics
        )
        return features[0], counts

    def hidden_states(
        self,
        waveforms: Tensor,
        lengths: Tensor | None = None,
        *,
        layers: Sequence[int] | None = None,
        statistics: Statistics | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Features of several layers in one pass, in the order asked for; all layers from 0 by default."""
        layers = range(self.config.layers + 1) if layers is None else layers
        self._check_layers(layers)
        features, counts = self.frontend(waveforms, lengths, statistics=statistics)
        return self.transformer(features, frame_mask(counts, features.shape[1]), layers=layers), counts

    def frontend(
        self, waveforms: Tensor, lengths: Tensor | None = None, *, statistics: Statistics | None = None
    ) -> tuple[Tensor, Tensor]:
        """Waveforms to the transformer's projected input (B, T, D), zero where padded, and frame lengths
        (B,).

        A trainer masks features between this and ``transformer``.
        """
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
                valid = torch.arange(samples, device=waveforms.device) < lengths[:, None]
                waveforms = torch.where(valid, waveforms, 0.0)
        features = self.front_end(waveforms, lengths, statistics)
        if self.feature_norm is not None:
            features = self.feature_norm(features)
        if self.projection is not None:
            features = self.projection(features)
        counts = frame_lengths(lengths)
        return _zero_padding(features, frame_mask(counts, features.shape[1])), counts

    def transformer(self, features: Tensor, mask: Tensor | None = None, *, layers: Sequence[int]) -> list[Tensor]:
        """The layers asked for, each (B, T, D) and zero where padded, from ``frontend``'s features (B, T, D).

        ``mask`` (B, T) is True where valid; None when nothing is padded.
        """
        self._check_layers(layers)
        if features.shape[0] == 0 or features.shape[1] == 0:
            return [features for _ in layers]
        x = features + self.positional(features)
        if self.norm is not None:
            x = self.norm(x)
        if self.training and self.config.dropout > 0:
            x = F.dropout(x, self.config.dropout)
        return self.upper(x, mask, above=0, layers=layers)

    def upper(self, x: Tensor, mask: Tensor | None = None, *, above: int, layers: Sequence[int]) -> list[Tensor]:
        """As ``transformer``, but from the output (B, T, D) of layer ``above``, which is none of those below it.

        A trainer computes frozen layers without gradient, or once, and the rest here.
        """
        self._check_layers(layers)
        if min(layers) < above:
            raise ValueError(f"layers above {above} cannot give layer {min(layers)}")
        found = {above: x} if above in layers else {}
        # An utterance without frames has no key to attend to, and its softmax would be 0 / 0.
        keys = None if mask is None else mask | ~mask.any(1, keepdim=True)
        top = max(layers)
        positions = None if self.positions is None or top == above else self.positions(x.shape[1])
        for index in range(above + 1, top + 1):
            layer = self.layers[index - 1]
            skipped = (
                self.training and self.config.layer_dropout > 0 and bool(torch.rand(()) < self.config.layer_dropout)
            )
            if skipped:
                pass
            elif self.recompute and torch.is_grad_enabled():
                x = checkpoint(layer, x, keys, positions, use_reentrant=False)
            else:
                x = layer(x, keys, positions)
            if index in layers:
                found[index] = x
        return [_zero_padding(found[index], mask) for index in layers]

    def statistics(self, blocks: Iterable[Tensor]) -> Statistics:
        """What ``forward`` must know of a whole waveform to encode a cut of it.

        ``blocks`` are consecutive stretches (S_i,) of one waveform at 16 kHz, float32; none is kept.
        """
        return self.front_end.stream_statistics(blocks)

    def _check_layers(self, layers: Sequence[int]) -> None:
        wrong = [layer for layer in layers if not 0 <= layer <= self.config.layers]
        if wrong or not layers:
            raise ValueError(f"this encoder has layers 0 ... {self.config.layers}, asked for {list(layers)}")


def _front_end(config: EncoderConfig) -> FrontEnd | LogMelFrontEnd:
    shape = (config.conv_channels, config.conv_kernels, config.conv_strides)
    if config.front_end == "log_mel":
        return LogMelFrontEnd(*shape, bias=config.conv_bias)
    return FrontEnd(
        *shape,
        bias=config.conv_bias,
        group_norm=config.conv_norm == "group",
        waveform_eps=config.waveform_eps if config.normalize_waveform else None,
    )


def frame_lengths(lengths: Tensor) -> Tensor:
    """Frames (B,) of utterances of ``lengths`` (B,) samples: ``frames.num_frames`` of each."""
    return ((lengths - RECEPTIVE_FIELD).div(HOP, rounding_mode="floor") + 1).clamp(min=0)


def frame_mask(counts: Tensor, frames: int) -> Tensor | None:
    """Mask (B, frames), True in the first ``counts`` (B,) of each row; None when nothing is padded."""
    if bool((counts == frames).all()):
        return None
    return torch.arange(frames, device=counts.device) < counts[:, None]


def _zero_padding(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x.masked_fill(~mask[:, :, None], 0.0)


@torch.no_grad()
def random_encoder(config: EncoderConfig, generator: torch.Generator) -> Encoder:
    """An encoder with the initial weights of the HuBERT recipe, to train from scratch.

    Convolutions: Kaiming normal; projection: uniform in the inverse root of its inputs; positional
    convolution: normal with variance 4 / (kernel width); transformer: normal with deviation 0.02; biases 0.
    Source: Hsu et al. 2021, "HuBERT", and its fairseq recipe. The positional convolution's weight norm is not
    kept.
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
    encoder.positional.weight.normal_(0, deviation, generator=generator)
    assert encoder.positional.bias is not None
    encoder.positional.bias.zero_()
    return encoder
