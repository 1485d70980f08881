"""The architecture of an SSL encoder."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from spintok.models.conv_layer import check_geometry
from spintok.models.transformer import NormPosition

__all__ = ["EncoderConfig"]


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
