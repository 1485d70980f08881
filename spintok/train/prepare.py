"""From a recipe and a list of speech to all that the loop needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from spintok.data.alignments import match, read_alignments
from spintok.data.ctc_targets import CtcTargets, read_lexicon
from spintok.data.manifest import Utterance, scan
from spintok.data.transcripts import Transcripts
from spintok.frames import SAMPLE_RATE
from spintok.loading import load
from spintok.models.encoder import Encoder, random_encoder
from spintok.tokenizer import Tokenizer
from spintok.train.batching.examples import Examples, Recordings
from spintok.train.batching.frozen import FrozenExamples
from spintok.train.batching.labels import Labels, aligned, label
from spintok.train.batching.plan import BatchPlan, listed_samples
from spintok.train.batching.views import SpinExamples
from spintok.train.distributed import Ranks
from spintok.train.recipe import CtcRecipe, PretrainRecipe, RecipeError, SpinRecipe, TrainedRecipe, ViewsConfig
from spintok.train.source import is_alignments, open_encoder
from spintok.train.stages.base import StageModel
from spintok.train.stages.ctc import CtcExamples, CtcModel
from spintok.train.stages.masked import MaskedExamples, MaskedPrediction
from spintok.train.stages.spin import SpinModel
from spintok.train.stages.trainable import TrainableEncoder

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """A stage that is ready to run.

    Attributes:
        model: with its initial weights.
        plan: of the batches.
        examples: makes what prepares batches; this may take long, and writes into the folder that is given.
        notes: lines worth telling, such as what was left out.
    """

    model: StageModel
    plan: BatchPlan
    examples: Callable[[Path, Progress], Examples]
    notes: tuple[str, ...] = ()


def prepare(
    recipe: PretrainRecipe | CtcRecipe | SpinRecipe, utterances: Sequence[Utterance], data: Path, ranks: Ranks
) -> Prepared:
    """Open what the recipe names, and check that all fits together.

    Args:
        recipe: of a stage that trains by gradient.
        utterances: the speech.
        data: where the list came from: transcripts may stand there.
        ranks: this process's place.

    Raises:
        ValueError: something is missing or does not fit; it names the recipe's field.
    """
    samples = listed_samples(utterances)
    recordings = Recordings(utterances, round(recipe.data.max_seconds * SAMPLE_RATE))
    # The weights that start at random depend on the seed only.
    torch.manual_seed(recipe.loop.seed)
    match recipe:
        case PretrainRecipe():
            return _pretrain(recipe, recordings, samples, ranks)
        case CtcRecipe():
            return _ctc(recipe, recordings, samples, ranks, data)
        case SpinRecipe():
            return _spin(recipe, recordings, samples, ranks)


def _pretrain(recipe: PretrainRecipe, recordings: Recordings, samples: NDArray[np.int64], ranks: Ranks) -> Prepared:
    if (recipe.encoder is None) == (recipe.start is None):
        raise RecipeError("a pretrain recipe has either an [encoder] to train from scratch, or start (--init)")
    if recipe.encoder is not None:
        encoder = random_encoder(recipe.encoder, torch.Generator().manual_seed(recipe.loop.seed))
    else:
        encoder = _start(recipe)
    notes: tuple[str, ...] = ()
    if is_alignments(recipe.labels):
        phones, samples, notes = _phones(recipe.labels, recordings.utterances, samples)
        size = phones.size
    else:
        phones, teacher = None, _tokenizer("labels", recipe.labels)
        size = teacher.codebook_size
    trainable = _trainable(recipe, encoder, layer=recipe.layer)
    model = MaskedPrediction(trainable, size, recipe.width, recipe.temperature, recipe.unmasked, ranks)
    views = SpinExamples(recordings, recipe.views, recipe.loop.seed, _noise(recipe.views))

    def examples(folder: Path, progress: Progress) -> Examples:
        labels = phones or label(teacher.to(ranks.device), recordings.utterances, folder, ranks, progress)
        return MaskedExamples(
            recordings, labels, recipe.mask, recipe.loop.seed, disguised=recipe.disguised, views=views
        )

    return Prepared(model, _plan(recipe, samples, ranks), examples, notes)


def _phones(
    source: str, utterances: Sequence[Utterance], samples: NDArray[np.int64]
) -> tuple[Labels, NDArray[np.int64], tuple[str, ...]]:
    """The labels, the samples (N,) with those of utterances without a phone set to 0, and what to say of it."""
    try:
        alignments = match([utterance.key for utterance in utterances], read_alignments(Path(source)))
    except ValueError as error:
        raise RecipeError(f"labels: {error}") from None
    labels, names = aligned(alignments, utterances, samples)
    usable = np.where([utterance.key in alignments for utterance in utterances], samples, 0)
    notes = [f"the labels are {len(names)} phones: {' '.join(names)}"]
    if left_out := int((usable == 0).sum()):
        notes.append(f"{left_out} of {len(samples)} utterances are left out: they have no alignment")
    return labels, usable, tuple(notes)


def _noise(views: ViewsConfig) -> list[Utterance]:
    return scan(views.noise_files) if views.noise_files else []


def _ctc(recipe: CtcRecipe, recordings: Recordings, samples: NDArray[np.int64], ranks: Ranks, data: Path) -> Prepared:
    if recipe.transcripts is None and not data.is_file():
        raise RecipeError(f"{data} holds no transcripts: name their file in the field transcripts")
    texts = Transcripts(data if recipe.transcripts is None else Path(recipe.transcripts))
    lexicon = None if recipe.lexicon is None else read_lexicon(Path(recipe.lexicon))
    targets = CtcTargets.of(recordings.utterances, texts, lexicon)
    known = np.array([target is not None for target in targets.targets])
    # A crop would not say what its transcript says.
    usable = np.where(known & (samples <= recordings.max_samples), samples, 0)
    notes = []
    if left_out := int((usable == 0).sum()):
        notes.append(f"{left_out} of {len(samples)} utterances are left out: too long, or without a usable transcript")
    if targets.unknown_words:
        words = targets.unknown_words
        notes.append(f"{len(words)} words are not in the lexicon, such as {', '.join(words[:3])}")
    trainable = _trainable(
        recipe,
        _start(recipe),
        layer=recipe.layer,
        train_layers=recipe.train_layers,
        train_front_end=recipe.train_front_end,
    )
    model = CtcModel(trainable, len(targets.symbols), recipe.width, recipe.temperature, ranks)
    return Prepared(model, _plan(recipe, usable, ranks), lambda _, __: CtcExamples(recordings, targets), tuple(notes))


def _spin(recipe: SpinRecipe, recordings: Recordings, samples: NDArray[np.int64], ranks: Ranks) -> Prepared:
    trainable = _trainable(
        recipe,
        _start(recipe),
        layer=recipe.layer,
        train_layers=recipe.train_layers,
        train_front_end=recipe.train_front_end,
    )
    teacher = None if recipe.labels is None else _tokenizer("labels.tokenizer", recipe.labels.tokenizer)
    model = SpinModel(
        trainable,
        recipe.codebooks,
        recipe.loss,
        ranks,
        labels=0 if teacher is None else teacher.codebook_size,
        label_weight=0.0 if recipe.labels is None else recipe.labels.weight,
        label_source="features" if recipe.labels is None else recipe.labels.source,
    )
    plan = _plan(recipe, samples, ranks)
    noise = _noise(recipe.views)

    def examples(folder: Path, progress: Progress) -> Examples:
        utterances = recordings.utterances
        labels = None if teacher is None else label(teacher.to(ranks.device), utterances, folder, ranks, progress)
        views = SpinExamples(recordings, recipe.views, recipe.loop.seed, noise, labels)
        if not recipe.views.variants:
            return views
        model.encoder.to(ranks.device).train()
        return FrozenExamples.build(views, model.encoder, plan.samples, folder, ranks, progress)

    return Prepared(model, plan, examples)


def _plan(recipe: TrainedRecipe, samples: NDArray[np.int64], ranks: Ranks) -> BatchPlan:
    return BatchPlan.of(samples, recipe.data, recipe.loop.seed, ranks.rank, ranks.size)


def _start(recipe: TrainedRecipe) -> Encoder:
    if recipe.start is None:
        raise RecipeError("the field start is missing: name the folder that the stage before left, or give --init")
    encoder = open_encoder(recipe.start)
    if not isinstance(encoder, Encoder):
        raise RecipeError(f"start: {recipe.start!r} has no layers to train; take an SSL encoder")
    return encoder


def _tokenizer(field: str, source: str) -> Tokenizer:
    try:
        return load(source)
    except ValueError as error:
        raise RecipeError(f"{field}: {error}") from None


def _trainable(
    recipe: TrainedRecipe,
    encoder: Encoder,
    *,
    layer: int | None,
    train_layers: int | None = None,
    train_front_end: bool = True,
) -> TrainableEncoder:
    try:
        trainable = TrainableEncoder(encoder, layer=layer, train_layers=train_layers, train_front_end=train_front_end)
    except ValueError as error:
        raise RecipeError(str(error)) from None
    trainable.encoder.recompute = recipe.loop.recompute
    return trainable
