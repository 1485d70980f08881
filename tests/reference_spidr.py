"""SpidR's student and its predictors of codes, from the paper and the names of the tensors in its checkpoints."""

import torch
from torch import Tensor
from torch.nn import functional as F

KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)


def spidr_state(
    *, width: int, layers: int, codebooks: int, channels: int = 16, inner: int = 48, size: int = 20, groups: int = 4
) -> dict[str, Tensor]:
    """A state dict at random, of the parts of a checkpoint that count, and of some that do not.

    The norm after the last layer is as it was made: no loss of SpidR depends on it.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, around: float = 0.0) -> Tensor:
        fan_in = shape[-1] if len(shape) < 3 else shape[1] * shape[2]
        return around + torch.randn(shape, generator=generator) * (fan_in**-0.5 if len(shape) > 1 else 0.1)

    state = {}

    def norm(name: str, features: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = random(features, around=1.0), random(features)

    def linear(name: str, outputs: int, inputs: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = random(outputs, inputs), random(outputs)

    for index, kernel in enumerate(KERNELS):
        block = f"feature_extractor.conv_layers.{index}"
        state[f"{block}.conv.weight"] = random(channels, channels if index else 1, kernel) * 1.5
        norm(f"{block}.layer_norm", channels)
    norm("feature_projection.layer_norm", channels)
    linear("feature_projection.projection", width, channels)
    for index in range(5):
        conv = f"student.pos_conv_embed.convs.{index}"
        state[f"{conv}.weight"], state[f"{conv}.bias"] = random(width, width // groups, 19), random(width)
    norm("student.layer_norm", width)
    for index in range(layers):
        layer = f"student.layers.{index}"
        state[f"{layer}.attention.qkv.weight"] = random(3 * width, width) * 2
        linear(f"{layer}.attention.proj", width, width)
        norm(f"{layer}.layer_norm", width)
        linear(f"{layer}.feed_forward.intermediate_dense", inner, width)
        linear(f"{layer}.feed_forward.output_dense", width, inner)
        norm(f"{layer}.final_layer_norm", width)
        state[f"teacher.layers.{index}.attention.proj.bias"] = random(width)
    last = f"student.layers.{layers - 1}.final_layer_norm"
    state[f"{last}.weight"], state[f"{last}.bias"] = torch.ones(width), torch.zeros(width)
    for index in range(codebooks):
        linear(f"heads.{index}.0", size, width)
        state[f"codebooks.{index}.codebook"] = random(size, width)
    state["mask_embedding"], state["current_step"] = random(width), torch.tensor([400_000])
    return state


@torch.inference_mode()
def spidr_features(state: dict[str, Tensor], waveform: Tensor, heads: int) -> list[Tensor]:
    """What the feed-forward network of each layer adds (T, D), of one waveform (S,), after the layers' input."""

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    x = F.layer_norm(waveform, waveform.shape)[None, None]
    for index, stride in enumerate(STRIDES):
        block = f"feature_extractor.conv_layers.{index}"
        x = F.conv1d(x, state[f"{block}.conv.weight"], stride=stride)
        x = F.gelu(norm(f"{block}.layer_norm", x.mT).mT)
    x = linear("feature_projection.projection", norm("feature_projection.layer_norm", x[0].mT))
    y = x
    for index in range(5):
        weight = state[f"student.pos_conv_embed.convs.{index}.weight"]
        bias = state[f"student.pos_conv_embed.convs.{index}.bias"]
        y = F.conv1d(y.mT[None], weight, bias, padding=9, groups=x.shape[1] // weight.shape[1])[0].mT
        y = F.gelu(F.layer_norm(y, y.shape[-1:]))
    x = norm("student.layer_norm", x + y)
    found = [x]
    for index in range(len({name.split(".")[2] for name in state if name.startswith("student.layers.")})):
        layer = f"student.layers.{index}"
        q, k, v = (
            part.unflatten(1, (heads, -1)).transpose(0, 1) for part in linear(f"{layer}.attention.qkv", x).chunk(3, 1)
        )
        scores = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        attended = (scores @ v).transpose(0, 1).flatten(1)
        x = norm(f"{layer}.layer_norm", x + linear(f"{layer}.attention.proj", attended))
        inner = F.gelu(linear(f"{layer}.feed_forward.intermediate_dense", x))
        added = linear(f"{layer}.feed_forward.output_dense", inner)
        found.append(added)
        x = norm(f"{layer}.final_layer_norm", x + added)
    return found


@torch.inference_mode()
def spidr_codes(state: dict[str, Tensor], waveform: Tensor, heads: int, layer: int) -> Tensor:
    """The codes (T,) that a layer, counted from 1, predicts; the last layers have predictors."""
    features = spidr_features(state, waveform, heads)
    predictors = sum(name.startswith("heads.") and name.endswith(".0.weight") for name in state)
    head = f"heads.{layer - (len(features) - 1 - predictors) - 1}.0"
    return F.linear(features[layer], state[f"{head}.weight"], state[f"{head}.bias"]).argmax(-1)
