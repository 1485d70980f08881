"""The part of a step that is compiled for CPUs: front end, positional convolution and transformer layers.

Streams that are computed together get the same bits as alone (``spintok_kernels.steps``).
"""

from collections.abc import Sequence
from threading import Lock
from weakref import WeakKeyDictionary

from spintok_kernels.steps import (
    STEPS,
    BandSettings,
    FrontEndWeights,
    LayerWeights,
    PackedConvolution,
    PackedFrontEnd,
    PackedLayers,
)
from torch import nn

from spintok.frames import FRAME_RATE
from spintok.models.conv_layer import ConvLayer
from spintok.models.encoder import Encoder
from spintok.models.positional import PositionalConv
from spintok.models.running import MELS_PER_FRAME, QUIET, VARIANCE_FLOOR
from spintok.models.running_log_mel import RunningLogMelFrontEnd
from spintok.models.transformer import TransformerLayer

__all__ = ["CompiledSteps", "compiled_steps"]


class CompiledSteps:
    """Packed weights of an encoder that streams, up to a layer: a snapshot."""

    def __init__(self, encoder: Encoder, layer: int) -> None:
        positional, layers = _weights(encoder, layer)
        assert positional.bias is not None
        config = encoder.config
        self.front_end = PackedFrontEnd(_front_end(encoder), _bands(encoder), config.norm_eps)
        self.positional = PackedConvolution(positional.weight, positional.bias, positional.groups)
        self.layers = PackedLayers(layers, config.heads, pre=config.norm_position == "pre", eps=config.norm_eps)

    def equals(self, encoder: Encoder, layer: int) -> bool:
        """Whether the encoder still has these weights."""
        positional, layers = _weights(encoder, layer)
        assert positional.bias is not None
        return (
            self.front_end.equals(_front_end(encoder))
            and self.positional.equals(positional.weight, positional.bias)
            and self.layers.equals(layers)
        )


def _front_end(encoder: Encoder) -> FrontEndWeights:
    front, feature_norm, projection = encoder.front_end, encoder.feature_norm, encoder.projection
    assert isinstance(front, RunningLogMelFrontEnd)
    (convolution,) = front.layers
    assert isinstance(convolution, ConvLayer)
    norm = front.norm
    return FrontEndWeights(
        front.window,
        front.mel,
        norm.prior_energy,
        norm.prior_mean,
        norm.prior_variance,
        norm.scale,
        norm.shift,
        convolution.weight,
        convolution.bias,
        *((None, None) if feature_norm is None else (feature_norm.weight, feature_norm.bias)),
        *((None, None) if projection is None else (projection.weight, projection.bias)),
    )


def _bands(encoder: Encoder) -> BandSettings:
    front = encoder.front_end
    assert isinstance(front, RunningLogMelFrontEnd)
    own, rate = front.norm.config, MELS_PER_FRAME * FRAME_RATE
    weights = own.half_life * rate, own.prior * rate, own.level_prior * rate
    return BandSettings(front.hop, front.fft, *weights, own.floor, QUIET, VARIANCE_FLOOR)


def _weights(encoder: Encoder, layer: int) -> tuple[PositionalConv, Sequence[LayerWeights]]:
    assert isinstance(encoder.positional, PositionalConv)
    found = []
    for one in encoder.layers[:layer]:
        assert isinstance(one, TransformerLayer)
        modules: list[nn.LayerNorm | nn.Linear] = [one.attention_norm, one.attention.qkv, one.attention.out]
        modules += [one.feed_forward_norm, one.expand, one.contract]
        found.append(LayerWeights(*(tensor for module in modules for tensor in (module.weight, module.bias))))
    return encoder.positional, found


_CACHE: WeakKeyDictionary[Encoder, CompiledSteps] = WeakKeyDictionary()
_LOCK = Lock()


def compiled_steps(encoder: Encoder, layer: int) -> CompiledSteps | None:
    """The packed weights of an encoder on the CPU, which all its streams share; None where torch has to compute."""
    if next(encoder.parameters()).device.type != "cpu" or layer == 0 or encoder.positions is not None:
        return None
    if STEPS.choose()[0] == "torch":
        STEPS.warn_if_missing()
        return None
    with _LOCK:
        found = _CACHE.get(encoder)
        # Compare the weights themselves: nothing cheaper detects every way of changing them.
        if found is None or not found.equals(encoder, layer):
            found = _CACHE[encoder] = CompiledSteps(encoder, layer)
        return found
