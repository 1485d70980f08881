"""What a run will look like, before it runs: shapes, parameters, memory and steps."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from spintok.frames import FRAME_RATE, SAMPLE_RATE, num_frames
from spintok.models.config import EncoderConfig
from spintok.train.prepare import Prepared
from spintok.train.recipe import CtcRecipe, PretrainRecipe, SpinRecipe
from spintok.train.stages.spin import SpinModel
from spintok.train.stages.trainable import TrainableEncoder

__all__ = ["Memory", "activation_values", "describe", "estimate_memory"]


@dataclass(frozen=True)
class Memory:
    """Bytes at the fullest point of a step: an estimate, without what the allocator wastes.

    Attributes:
        weights: of the model, float32.
        training: gradients and Adam's two running means.
        activations: what the trained part keeps for its gradient, or the largest of the frozen part.
        scores: of frames by codewords.
    """

    weights: int
    training: int
    activations: int
    scores: int

    @property
    def total(self) -> int:
        return self.weights + self.training + self.activations + self.scores


def describe(recipe: PretrainRecipe | CtcRecipe | SpinRecipe, prepared: Prepared, device: torch.device) -> str:
    """Some lines for people."""
    return "\n".join(f"{name:12}{text}" for name, text in _lines(recipe, prepared, device))


def estimate_memory(prepared: Prepared, *, value_bytes: int, batch_seconds: float, recompute: bool = False) -> Memory:
    """The memory of a step over ``batch_seconds`` of audio on one device, activations of ``value_bytes`` each."""
    model = prepared.model
    weights = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    views = 2 if isinstance(model, SpinModel) else 1
    frames = round(views * batch_seconds * FRAME_RATE)
    kept = activation_values(model.encoder, recompute=recompute) * frames
    passing = 0 if model.encoder.frozen is None else 2 * _first_convolution(model.encoder.encoder.config) * frames
    sizes = [book.config.size for book in model.codebooks.values()]
    return Memory(4 * weights, 12 * trained, value_bytes * max(kept, passing), 4 * frames * max(sizes))


def activation_values(encoder: TrainableEncoder, *, recompute: bool = False) -> int:
    """Numbers a frame that the trained part keeps for its gradient.

    Of a transformer layer of width D and feed-forward width F, 9 D + 2 F: the inputs of its products and norms,
    queries, keys and values, and both sides of the GELU. With ``recompute``, D and one layer's numbers.
    """
    config = encoder.encoder.config
    trained = encoder.layer if encoder.frozen is None else encoder.layer - encoder.frozen
    layer = 9 * config.width + 2 * config.feed_forward
    kept = trained * layer if not recompute else trained * config.width + min(trained, 1) * layer
    if encoder.frozen is None:
        # Both sides of each convolution's GELU, then the norm, the projection, and the positional convolution.
        rate = SAMPLE_RATE
        for channels, stride in zip(config.conv_channels, config.conv_strides, strict=True):
            rate //= stride
            kept += 2 * channels * rate // FRAME_RATE
        kept += 2 * config.conv_channels[-1] + 5 * config.width
    return kept


def _first_convolution(config: EncoderConfig) -> int:
    """Numbers a frame that come out of the first convolution, the largest layer."""
    return config.conv_channels[0] * SAMPLE_RATE // config.conv_strides[0] // FRAME_RATE


def _lines(
    recipe: PretrainRecipe | CtcRecipe | SpinRecipe, prepared: Prepared, device: torch.device
) -> Iterator[tuple[str, str]]:
    model, plan = prepared.model, prepared.plan
    encoder = model.encoder
    config = encoder.encoder.config
    channels = config.conv_channels
    bands = ""
    if config.front_end == "log_mel":
        bands, channels = f"{channels[0]} mel bands, ", channels[1:]
    convolutions = f"{len(channels)} x {channels[0]}" if len(set(channels)) == 1 else " ".join(map(str, channels))
    front_end = f"{bands}convolutions {convolutions}"
    yield "encoder", f"{front_end}, {encoder.layer} layers of {config.width}, {config.heads} heads"
    trains = "all" if encoder.frozen is None else f"layers {encoder.frozen + 1} to {encoder.layer}"
    yield "trains", trains if encoder.frozen != encoder.layer else "the codebooks only"
    weights = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    yield "parameters", f"{weights:,}, of which {trained:,} train"
    for book in model.codebooks.values():
        yield "codebook", f"{book.config.name}: {book.config.size} codewords of {book.config.width}"
    used = plan.samples[plan.samples > 0]
    hours = int(used.sum()) / SAMPLE_RATE / 3600
    yield (
        "speech",
        f"{len(used)} of {len(plan.samples)} utterances, {hours:.2f} h a pass, in {len(plan.epoch(0))} batches",
    )
    largest = max(plan.epoch(0), key=lambda rows: int(plan.samples[list(rows)].sum()))
    longest = int(plan.samples[list(largest)].max())
    views = 2 if isinstance(model, SpinModel) else 1
    yield (
        "a batch",
        f"such as ({views * len(largest)}, {longest}) samples, ({views * len(largest)}, {num_frames(longest)}) frames",
    )
    optimizer = recipe.optimizer
    passes = optimizer.steps * optimizer.accumulation / len(plan.epoch(0))
    yield "steps", f"{optimizer.steps}, with {optimizer.accumulation} batches each: {passes:.1f} passes over the speech"
    value_bytes = 4 if recipe.loop.precision == "float32" or device.type == "cpu" else 2
    memory = estimate_memory(
        prepared,
        value_bytes=value_bytes,
        batch_seconds=recipe.data.seconds / plan.ranks,
        recompute=recipe.loop.recompute,
    )
    parts = {name: getattr(memory, name) / 2**30 for name in ("weights", "training", "activations", "scores")}
    listed = ", ".join(f"{name} {size:.2f}" for name, size in parts.items())
    yield "memory", f"about {memory.total / 2**30:.2f} GiB a process on {device.type}: {listed}"
