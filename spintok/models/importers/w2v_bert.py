"""w2v-BERT 2.0: Kaldi's filter bank here, and the conformer of transformers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spintok._files import require
from spintok.frames import FrameGrid
from spintok.models.filterbank import kaldi_frames, mel_bands, povey_window
from spintok.models.importers.huggingface import feature_extractor, read_json, read_weights
from spintok.models.importers.weights import CheckpointError, check_weights
from spintok.models.one_by_one import OneByOne
from spintok.models.statistics import WaveformStatistics

__all__ = ["MODEL_TYPE", "W2vBert", "W2vBertConfig", "load_w2v_bert"]

MODEL_TYPE = "wav2vec2-bert"
"""What transformers calls the architecture in a config.json."""

_BANDS = 80
_STACKED = 2  # log-mel frames that make one frame of the encoder
_WINDOW, _STEP, _FFT = 400, 160, 512  # samples
_SCALE = 1 << 15  # Kaldi's samples are 16-bit integers.
# Of torch.finfo(float32), as in Kaldi and in transformers.
_FLOOR = 1.192092955078125e-07
_VARIANCE_FLOOR = 1e-7
# Limits that no encoder comes near. They keep a damaged or hostile configuration from taking all memory.
_MOST_LAYERS = 200
_LARGEST = 1 << 20


@dataclass(frozen=True)
class W2vBertConfig:
    """The architecture; the defaults are w2v-BERT 2.0.

    Attributes:
        width, heads, feed_forward, layers: the dimensions of the conformer.
        conv_kernel: frames that the causal convolution of a layer reads.
        left, right: the distances in frames from which on the relative position of earlier and later keys stays the
            same.
        activation: transformers' name of the function in feed-forward networks and convolutions.
        norm_eps: the epsilon of the layer norms.

    Raises:
        ValueError: a value is impossible.
    """

    width: int = 1024
    heads: int = 16
    feed_forward: int = 4096
    layers: int = 24
    conv_kernel: int = 31
    left: int = 64
    right: int = 8
    activation: str = "swish"
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name, least in (
            ("width", 1),
            ("heads", 1),
            ("feed_forward", 1),
            ("conv_kernel", 1),
            ("left", 0),
            ("right", 0),
        ):
            _check_int(name, getattr(self, name), least, _LARGEST)
        _check_int("layers", self.layers, 0, _MOST_LAYERS)
        if self.width % self.heads or self.conv_kernel % 2 == 0:
            raise ValueError(f"width must be a multiple of heads, and conv_kernel odd, got {self}")
        if self.activation not in ("swish", "silu", "gelu", "relu"):
            raise ValueError(f"activation is swish, silu, gelu or relu, got {str(self.activation)[:80]!r}")
        if not isinstance(self.norm_eps, float) or not 0 < self.norm_eps < 1:
            raise ValueError(f"norm_eps must be in (0, 1), got {str(self.norm_eps)[:80]}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "W2vBertConfig":
        """From the values of ``asdict``. Raises ``ValueError``."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"unknown field {', '.join(unknown)} of w2v-BERT: written by a newer spintok?")
        return cls(**values)

    @classmethod
    def from_transformers(cls, settings: Mapping[str, Any]) -> "W2vBertConfig":
        """From a config.json of transformers.

        Raises:
            CheckpointError: it describes something that w2v-BERT 2.0 is not.
        """
        positions = settings.get("position_embeddings_type", "relative_key")
        inputs = settings.get("feature_projection_input_dim", _STACKED * _BANDS)
        if positions != "relative_key" or inputs != _STACKED * _BANDS:
            raise CheckpointError(
                f"its positions are {str(positions)[:80]!r} and its inputs {str(inputs)[:80]} numbers wide; spintok "
                f"reads w2v-BERT 2.0, with 'relative_key' and {_STACKED * _BANDS}"
            )
        return cls(**{ours: settings[theirs] for ours, theirs in _NAMES.items() if theirs in settings})


_NAMES = {
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "feed_forward": "intermediate_size",
    "layers": "num_hidden_layers",
    "conv_kernel": "conv_depthwise_kernel_size",
    "left": "left_max_position_embeddings",
    "right": "right_max_position_embeddings",
    "activation": "hidden_act",
    "norm_eps": "layer_norm_eps",
}


class W2vBert(OneByOne):
    """Features of w2v-BERT 2.0, 50 per second.

    Layer ``n`` is ``hidden_states[n]`` of transformers' ``Wav2Vec2BertModel``: 0 is the projected filter bank, and
    every other layer ends with a layer norm of its own. The filter bank is that of ``SeamlessM4TFeatureExtractor``: 80
    log-mel bands every 10 ms, each normalised over the recording, two frames side by side. A log-mel frame without a
    partner at the end counts in the normalisation and makes no frame, as the extractor's attention mask says. Parts of
    long recordings are normalised by the whole. Sums are in float64.

    Each utterance is encoded alone, without padding; batches gain no speed.

    transformers' code computes the layers, so a saved tokenizer names the major version of transformers, and another
    one is refused.

    Source: Communication et al. 2023, "Seamless: Multilingual Expressive and Streaming Speech Translation".
    """

    type_name = "w2v-bert"
    context_frames = 250
    grid = FrameGrid(_STACKED * _STEP, _WINDOW + (_STACKED - 1) * _STEP)
    # To give the output of its layers, transformers changes the modules during a call.
    runs_in_threads = False

    window: Tensor
    mel: Tensor

    def __init__(self, config: W2vBertConfig) -> None:
        super().__init__()
        self.config = config
        # Not weights, so they must exist even if the module is created on the meta device.
        with torch.device("cpu"):
            self.register_buffer("window", povey_window(), persistent=False)
            self.register_buffer("mel", mel_bands(_BANDS, _FFT).double(), persistent=False)
        self.model = _conformer(config)

    @classmethod
    def from_state(cls, config: W2vBertConfig, state: Mapping[str, Tensor]) -> "W2vBert":
        """With float32 weights under transformers' names, in evaluation mode.

        Raises:
            CheckpointError: a weight is missing or of the wrong shape.
        """
        with torch.device("meta"):
            extractor = cls(config)
        needed = {name: tuple(tensor.shape) for name, tensor in extractor.model.state_dict().items()}
        wrong = [name for name, shape in needed.items() if name not in state or tuple(state[name].shape) != shape]
        if wrong:
            given = tuple(state[wrong[0]].shape) if wrong[0] in state else "nothing"
            raise CheckpointError(
                f"{len(wrong)} weights do not fit config.json, the first is {wrong[0]}: needed {needed[wrong[0]]}, "
                f"given {given}"
            )
        weights = {name: state[name].detach().to(torch.float32) for name in needed}
        check_weights(weights)
        extractor.model.load_state_dict(weights, assign=True)
        return extractor.requires_grad_().eval()

    @property
    def num_features(self) -> int:
        """D, the width of every layer."""
        return self.config.width

    @property
    def num_layers(self) -> int:
        """The number of conformer layers."""
        return self.config.layers

    def features_alone(
        self, waveform: Tensor, layers: Sequence[int], statistics: WaveformStatistics | None
    ) -> list[Tensor]:
        last = self.num_layers
        bank = self._bank(waveform, statistics)
        out = self.model(bank[None], output_hidden_states=any(layer < last for layer in layers))
        return [(out.last_hidden_state if layer == last else out.hidden_states[layer])[0] for layer in layers]

    @torch.no_grad()
    def statistics(self, blocks: Iterable[Tensor]) -> WaveformStatistics:
        buffer = torch.empty(0, device=self.window.device)
        total = self._sums(self._log_mel(buffer))
        for block in blocks:
            buffer = torch.cat([buffer, block.to(buffer.device)])
            bands = self._log_mel(buffer)
            total += self._sums(bands)
            buffer = buffer[len(bands) * _STEP :]
        return total

    def truncated(self, layers: int) -> "W2vBert":
        """A copy, sharing these weights, with only the lowest ``layers`` layers."""
        self.check_layers([layers])
        return W2vBert.from_state(replace(self.config, layers=layers), self.model.state_dict())

    def to_config(self) -> dict[str, Any]:
        return {"transformers": _major(), **asdict(self.config)}

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> "W2vBert":
        settings = dict(values)
        major = settings.pop("transformers")
        if major != _major():
            raise CheckpointError(
                f"transformers {major} made these features and {_major()} is installed: pip install "
                f"'transformers=={major}.*', or import the encoder again"
            )
        with torch.device("meta"):
            return cls(W2vBertConfig.from_dict(settings))

    def _bank(self, waveform: Tensor, statistics: WaveformStatistics | None) -> Tensor:
        """Normalised log-mel frames of a waveform (S,), two side by side: (T, 160) float32."""
        bands = self._log_mel(waveform)
        statistics = statistics or self._sums(bands)
        mean, covariance = statistics.patch_mean_and_covariance()
        # The extractor divides by one less than the number of frames.
        variance = covariance[0].diagonal().clamp(min=0) * (statistics.patches / (statistics.patches - 1))
        normalised = (bands - mean[0]) * (variance + _VARIANCE_FLOOR).rsqrt()
        pairs = len(bands) // _STACKED
        return normalised[: pairs * _STACKED].reshape(pairs, -1).to(torch.float32)

    @staticmethod
    def _sums(bands: Tensor) -> WaveformStatistics:
        """The sums over log-mel frames (M, 80); those over samples are not used and stay 0."""
        none = bands.new_zeros(1)
        return WaveformStatistics(
            samples=none,
            sum=none,
            squares=none,
            patches=bands.new_full((1,), len(bands)),
            patch_sum=bands.sum(0)[None],
            patch_gram=(bands.t() @ bands)[None],
        )

    @torch.no_grad()
    def _log_mel(self, waveform: Tensor) -> Tensor:
        """Log-mel frames (M, 80) float64 of a waveform (S,)."""
        if len(waveform) < _WINDOW:
            return self.mel.new_zeros(0, _BANDS)
        frames = kaldi_frames((waveform.double() * _SCALE).unfold(0, _WINDOW, _STEP)[None], self.window)[0]
        spectrum = torch.fft.rfft(frames, n=_FFT)
        power = spectrum.real.square() + spectrum.imag.square()
        bands: Tensor = (power @ self.mel).clamp(min=_FLOOR).log()
        return bands


def load_w2v_bert(folder: Path) -> W2vBert:
    """The encoder of a ``save_pretrained`` folder of ``Wav2Vec2BertModel``, alone or in a model for another task.

    Heads and the adapter are left out. Only config.json, the feature extractor's settings and the weights are read.

    Raises:
        CheckpointError: it is another model, or files are missing, damaged or unsafe to read.
        MissingPackageError: transformers is not installed.
    """
    config = W2vBertConfig.from_transformers(read_json(folder / "config.json"))
    extractor = feature_extractor(folder) or {}
    expected = {"num_mel_bins": _BANDS, "stride": _STACKED, "sampling_rate": 16_000}
    for name, value in expected.items():
        if extractor.get(name, value) != value:
            raise CheckpointError(f"its feature extractor has {name} {str(extractor[name])[:80]}, not {value}")
    weights = read_weights(folder)
    return W2vBert.from_state(config, {name.removeprefix("wav2vec2_bert."): value for name, value in weights.items()})


def _conformer(config: W2vBertConfig) -> nn.Module:
    """transformers' model of this architecture, without what only training and other tasks need."""
    transformers = _transformers()
    settings = transformers.Wav2Vec2BertConfig(
        **{theirs: getattr(config, ours) for ours, theirs in _NAMES.items()},
        feature_projection_input_dim=_STACKED * _BANDS,
        position_embeddings_type="relative_key",
        add_adapter=False,
        apply_spec_augment=False,
        mask_time_prob=0.0,
        mask_feature_prob=0.0,
        layerdrop=0.0,
        conformer_conv_dropout=0.0,
    )
    # The other implementations sum in an order that depends on the device and the version of torch.
    settings._attn_implementation = "eager"
    model: nn.Module = transformers.Wav2Vec2BertModel(settings)
    return model


def _transformers() -> Any:
    return require("transformers", extra="huggingface", purpose="w2v-BERT")


def _major() -> str:
    """The major version of transformers."""
    return str(_transformers().__version__).partition(".")[0]


def _check_int(name: str, value: Any, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} must be an integer in {least} ... {most}, got {str(value)[:80]}")
