"""The architecture of an SSL encoder."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from spintok.frames import GRID, FrameGrid
from spintok.models.streaming import StreamingConfig
from spintok.models.transformer import NormPosition

__all__ = ["EncoderConfig"]


# Limits that no encoder comes near. They keep a damaged or hostile configuration from taking all memory.
_MOST_CONVOLUTIONS = 64
_MOST_LAYERS = 200
_LARGEST = 1 << 24


@dataclass(frozen=True)
class EncoderConfig:
    """The architecture of an encoder; the defaults are HuBERT Base.

    Attributes:
        front_end: "waveform" convolves samples, as HuBERT does. In "log_mel" a fixed filter bank takes the place of the
            first convolution (``spintok.models.log_mel``): ``conv_channels[0]`` mel bands from windows of
            ``conv_kernels[0]`` samples every ``conv_strides[0]`` samples. It needs ``conv_norm`` = "group".
        conv_channels, conv_kernels, conv_strides: output channels, kernel and stride of each convolution.
        conv_bias: whether the convolutions have a bias.
        conv_norm: "group" normalises the first convolution over time (Base), "layer" normalises every convolution
            over channels (Large).
        feature_norm: whether a layer norm precedes the projection to ``width``.
        projection: whether there is a projection; without it the last of ``conv_channels`` must be ``width``.
        normalize_waveform: whether each waveform is first normalised to zero mean and unit variance.
        waveform_eps: added to that variance: 1e-7 in Hugging Face's processors, 1e-5 in fairseq, s3prl and torchaudio.
        width, heads, feed_forward, layers: the dimensions of the transformer.
        norm_position: layer norms after each residual ("post", Base) or before each block ("pre", Large).
        final_norm: with "pre", whether the output of the last layer passes a final layer norm. False gives the layer's
            own output (``hidden_states[-1]`` of transformers 5, torchaudio, Spin); True gives ``last_hidden_state``
            of transformers, ``hidden_states[-1]`` of transformers 4, and the last layer of s3prl.
        feed_forward_output: the features of a layer are what its feed-forward network adds, before the residual
            connection and any norm, as SpidR and DinoSR read their layers. Layer 0 is the same.
        positional_kernel, positional_groups: kernel and groups of the positional convolution.
        positional_stack: 0 for the one convolution of HuBERT; else so many, each with a layer norm, as in data2vec.
        position_buckets: rows of WavLM's relative position bias; 0 for models without it.
        position_max_distance: the distance in frames from which on that bias stays the same.
        norm_eps: the epsilon of the transformer's layer norms.
        dropout: dropout in training, on residual branches and on the transformer's input.
        layer_dropout: the probability of skipping a layer in training.
        streaming: what an encoder that streams remembers; None for encoders that need whole recordings. It needs the
            front end "log_mel" with one convolution, of kernel and stride 2, and no relative position bias.

    Raises:
        ValueError: a value has the wrong type, is out of range, or does not fit the others.
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
    final_norm: bool = False
    feed_forward_output: bool = False
    positional_kernel: int = 128
    positional_groups: int = 16
    positional_stack: int = 0
    position_buckets: int = 0
    position_max_distance: int = 800
    norm_eps: float = 1e-5
    dropout: float = 0.0
    layer_dropout: float = 0.0
    streaming: StreamingConfig | None = None

    def __post_init__(self) -> None:
        for name in ("conv_channels", "conv_kernels", "conv_strides"):
            values = getattr(self, name)
            if not isinstance(values, list | tuple) or not 1 <= len(values) <= _MOST_CONVOLUTIONS:
                raise ValueError(f"{name} must list 1 to {_MOST_CONVOLUTIONS} numbers, got {str(values)[:80]}")
            object.__setattr__(self, name, tuple(values))
            for value in values:
                _check_int(name, value, 1, _LARGEST)
        self._check_numbers()
        if not len(self.conv_channels) == len(self.conv_kernels) == len(self.conv_strides):
            raise ValueError("conv_channels, conv_kernels and conv_strides must have the same length")
        FrameGrid.of_convolutions(self.conv_kernels, self.conv_strides)  # raises if it is impossible
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
        if self.front_end == "log_mel" and self.conv_channels[0] > self.conv_kernels[0]:
            raise ValueError(f"{self.conv_channels[0]} mel bands are more than the samples of their windows")
        self._check_streaming()
        if self.norm_position not in ("post", "pre"):
            raise ValueError(f'norm_position is "post" or "pre", got {self.norm_position!r}')
        if self.final_norm and (self.norm_position != "pre" or self.layers == 0):
            raise ValueError('final_norm is for encoders with norm_position "pre" and at least one layer')
        if self.feed_forward_output and self.final_norm:
            raise ValueError("final_norm is of the output of the last layer, which feed_forward_output leaves out")
        if self.position_buckets and not 4 <= self.position_buckets < 4 * self.position_max_distance:
            raise ValueError("position_buckets must be at least 4 and less than 4 position_max_distance")

    def _check_streaming(self) -> None:
        if self.streaming is None:
            return
        # A frame then reads two log-mel frames of its own, so chunks share nothing but their statistics.
        if self.front_end != "log_mel" or (self.conv_kernels[1:], self.conv_strides[1:]) != ((2,), (2,)):
            raise ValueError('streaming needs front_end "log_mel" with one convolution of kernel 2 and stride 2')
        if self.grid != GRID:
            raise ValueError(f"streaming encoders step by {GRID.hop} samples, and read {GRID.reach}, in each frame")
        if self.positional_stack:
            raise ValueError("streaming knows no stack of positional convolutions: positional_stack must be 0")
        if self.position_buckets:
            raise ValueError("streaming knows no relative position bias: position_buckets must be 0")
        if self.feed_forward_output:
            raise ValueError("streaming reads the output of layers: feed_forward_output must be false")

    @property
    def grid(self) -> FrameGrid:
        """Where the frames of the convolutions lie."""
        return FrameGrid.of_convolutions(self.conv_kernels, self.conv_strides)

    def _check_numbers(self) -> None:
        for name in (
            "conv_bias",
            "feature_norm",
            "projection",
            "normalize_waveform",
            "final_norm",
            "feed_forward_output",
        ):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        for name in ("width", "heads", "feed_forward", "positional_kernel", "positional_groups"):
            _check_int(name, getattr(self, name), 1, _LARGEST)
        for name in ("position_buckets", "position_max_distance", "positional_stack"):
            _check_int(name, getattr(self, name), 0, _LARGEST)
        _check_int("layers", self.layers, 0, _MOST_LAYERS)
        # NaN fails every comparison.
        for name in ("waveform_eps", "norm_eps", "dropout", "layer_dropout"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {str(value)[:80]}")
        if min(self.waveform_eps, self.norm_eps) == 0:
            raise ValueError("waveform_eps and norm_eps must be above 0")

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON. Younger fields, such as ``final_norm``, are left out if they are not set."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        younger = ("final_norm", "feed_forward_output", "streaming", "positional_stack")
        return {name: v for name, v in values.items() if v or name not in younger}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EncoderConfig":
        """The inverse of ``to_dict``. Missing fields take their defaults.

        Raises:
            ValueError: an unknown field, or an impossible value.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"unknown encoder field {', '.join(unknown)}: written by a newer spintok?")
        streaming = values.get("streaming")
        if streaming is None:
            return cls(**values)
        if not isinstance(streaming, Mapping):
            raise ValueError(f"streaming must be a section of fields, got {str(streaming)[:80]}")
        return cls(**{**values, "streaming": StreamingConfig.from_dict(streaming)})

    def truncated(self, layers: int) -> "EncoderConfig":
        """The configuration with only the lowest ``layers`` layers, which compute the same.

        Raises:
            ValueError: there are not so many layers.
        """
        if not 0 <= layers <= self.layers:
            raise ValueError(f"layers must be in 0 ... {self.layers}, got {layers}")
        return replace(self, layers=layers, final_norm=self.final_norm and layers == self.layers)


def _check_int(name: str, value: Any, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} must be an integer in {least} ... {most}, got {str(value)[:80]}")
