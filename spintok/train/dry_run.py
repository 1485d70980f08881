"""What a run will do, without running it: shapes, parameters, memory and steps."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from spintok.data.manifest import scan
from spintok.frames import FRAME_RATE, SAMPLE_RATE, num_frames
from spintok.models.config import EncoderConfig
from spintok.train import stages
from spintok.train.distributed import Distributed
from spintok.train.recipe import DecoderRecipe, KMeansRecipe, Recipe, TrainedRecipe
from spintok.train.run import TrainingData
from spintok.train.stages import decoder, kmeans
from spintok.train.stages.base import Corpus, Stage, StageModel
from spintok.train.stages.spin import SpinModel
from spintok.train.trainable import TrainableEncoder

__all__ = ["Memory", "activation_values", "dry_run", "estimate_memory"]


@dataclass(frozen=True)
class Memory:
    """Estimated peak memory of a step in bytes, without fragmentation.

    Attributes:
        weights: the size of the model's weights, in float32.
        training: gradients and Adam's two running means.
        activations: kept by the trained layers for the backward pass, or those of the frozen part if that is more.
        scores: frames times codewords.
    """

    weights: int
    training: int
    activations: int
    scores: int

    @property
    def total(self) -> int:
        return self.weights + self.training + self.activations + self.scores


def dry_run(recipe: Recipe, data: TrainingData, distributed: Distributed) -> str:
    """A description of what the run would do; nothing is written.

    Raises:
        ValueError: as ``spintok.train.run.train`` does.
    """
    if isinstance(recipe, KMeansRecipe):
        return kmeans.describe(recipe, scan(data.data))
    if isinstance(recipe, DecoderRecipe):
        return "\n".join(f"{name:12}{text}" for name, text in _describe_decoder(recipe, data, distributed))
    data.validation(recipe.loop.check_utterances)
    stage = stages.build(recipe, Corpus.open(data.data), distributed)
    lines = [f"{name:12}{text}" for name, text in _describe(recipe, stage, distributed.device)]
    return "\n".join([*stage.notes, *lines])


def estimate_memory(model: StageModel, *, value_bytes: int, batch_seconds: float, recompute: bool = False) -> Memory:
    """The memory of a step with ``batch_seconds`` of audio on one device and activations of ``value_bytes`` each."""
    weights = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    frames = round(_views(model) * batch_seconds * FRAME_RATE)
    kept = activation_values(model.encoder, recompute=recompute) * frames
    passing = 0 if model.encoder.frozen is None else 2 * _first_convolution(model.encoder.encoder.config) * frames
    sizes = [book.config.size for book in model.codebooks.values()]
    return Memory(4 * weights, 12 * trained, value_bytes * max(kept, passing), 4 * frames * max(sizes))


def activation_values(encoder: TrainableEncoder, *, recompute: bool = False) -> int:
    """Numbers per frame that the trained layers keep for the backward pass.

    A transformer layer of width D and feed-forward width F keeps 9 D + 2 F: the inputs of its linear layers and norms,
    queries, keys and values, and input and output of the GELU. With ``recompute`` it keeps D, and one layer at a time
    keeps everything.
    """
    config = encoder.encoder.config
    trained = encoder.layer if encoder.frozen is None else encoder.layer - encoder.frozen
    layer = 9 * config.width + 2 * config.feed_forward
    kept = trained * layer if not recompute else trained * config.width + min(trained, 1) * layer
    if encoder.frozen is None:
        # Input and output of each convolution's GELU, then the norm, the projection, and the positional convolution.
        rate = SAMPLE_RATE
        for channels, stride in zip(config.conv_channels, config.conv_strides, strict=True):
            rate //= stride
            kept += 2 * channels * rate // FRAME_RATE
        kept += 2 * config.conv_channels[-1] + 5 * config.width
    return kept


def _first_convolution(config: EncoderConfig) -> int:
    """Output values of the first convolution per frame; it is the largest layer of the front end."""
    return config.conv_channels[0] * SAMPLE_RATE // config.conv_strides[0] // FRAME_RATE


def _views(model: StageModel) -> int:
    return 2 if isinstance(model, SpinModel) else 1


def _describe(recipe: TrainedRecipe, stage: Stage, device: torch.device) -> Iterator[tuple[str, str]]:
    model, plan, optimizer = stage.model, stage.plan, recipe.optimizer
    yield from _describe_model(model)
    used = plan.samples[plan.samples > 0]
    batches = plan.epoch(0)
    hours = int(used.sum()) / SAMPLE_RATE / 3600
    yield (
        "speech",
        f"{len(used)} of {len(plan.samples)} utterances, {hours:.2f} h per epoch, in {len(batches)} batches",
    )
    largest = max(batches, key=lambda rows: int(plan.samples[list(rows)].sum()))
    longest = int(plan.samples[list(largest)].max())
    count = _views(model) * len(largest)
    yield "batch", f"for example ({count}, {longest}) samples, ({count}, {num_frames(longest)}) frames"
    epochs = optimizer.steps * optimizer.accumulation / len(batches)
    yield "steps", f"{optimizer.steps} of {optimizer.accumulation} batches each: {epochs:.1f} epochs"
    memory = estimate_memory(
        model,
        value_bytes=4 if recipe.loop.precision == "float32" or device.type == "cpu" else 2,
        batch_seconds=recipe.data.seconds / plan.world_size,
        recompute=recipe.loop.recompute,
    )
    parts = {name: getattr(memory, name) / 2**30 for name in ("weights", "training", "activations", "scores")}
    listed = ", ".join(f"{name} {size:.2f}" for name, size in parts.items())
    yield "memory", f"about {memory.total / 2**30:.2f} GiB per process on {device.type}: {listed}"


def _describe_decoder(recipe: DecoderRecipe, data: TrainingData, distributed: Distributed) -> Iterator[tuple[str, str]]:
    stage = decoder.build(recipe, Corpus.open(data.data), distributed)
    made, plan = stage.model.decoder, stage.plan
    yield "decoder", made.describe()
    yield "parameters", f"{sum(parameter.numel() for parameter in made.parameters()):,}"
    yield "latency", f"{made.latency:.2f} s"
    batches = plan.epoch(0)
    hours = int(plan.samples.sum()) / SAMPLE_RATE / 3600
    yield "speech", f"{int((plan.samples > 0).sum())} of {len(plan.samples)} utterances, {hours:.2f} h per epoch"
    yield "steps", f"{recipe.optimizer.steps} batches, {recipe.optimizer.steps / len(batches):.1f} epochs"


def _describe_model(model: StageModel) -> Iterator[tuple[str, str]]:
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
