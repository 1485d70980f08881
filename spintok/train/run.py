"""A recipe and speech to a tokenizer folder."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from spintok._files import digest
from spintok.chunking import Window
from spintok.data.manifest import Utterance, scan
from spintok.tokenizer import Tokenizer
from spintok.train.distributed import Ranks
from spintok.train.dry_run import describe
from spintok.train.loop import Run, fit
from spintok.train.prepare import prepare
from spintok.train.recipe import KMeansRecipe, PretrainRecipe, Recipe, TrainedRecipe
from spintok.train.stages.base import StageModel
from spintok.train.stages.kmeans import describe as describe_kmeans
from spintok.train.stages.kmeans import run as run_kmeans
from spintok.train.validation import Check

__all__ = ["Speech", "outlook", "started_from", "train"]

FOLDER = "training"
"""Below the tokenizer's folder: checkpoint, log, labels."""


@dataclass(frozen=True)
class Speech:
    """The speech of a run.

    Attributes:
        data: a folder or manifest to train on.
        dev: a folder or manifest to check on.
        alignments: phones of ``dev``, in a form that ``spintok.data.alignments`` reads.
    """

    data: Path
    dev: Path | None = None
    alignments: Path | None = None

    def check(self, count: int) -> Check | None:
        """The check on ``count`` utterances of ``dev``. Raises ``ValueError``."""
        if self.dev is None:
            if self.alignments is not None:
                raise ValueError("alignments belong to a development set: give it too")
            return None
        return Check(scan(self.dev), count, self.alignments)


def train(recipe: Recipe, speech: Speech, output: Path, ranks: Ranks, console: Console) -> Tokenizer:
    """Run a stage and write its tokenizer into ``output``; run again after a crash, it goes on where it was.

    ``output/training`` holds the checkpoint, ``log.csv``, ``checks.csv``, and labels or features that were computed
    once; it may be deleted when the tokenizer is done.

    Raises:
        ValueError: a recipe, recording or transcript that cannot be used, or a run that failed; one line.
    """
    utterances = scan(speech.data)
    if isinstance(recipe, KMeansRecipe):
        tokenizer = run_kmeans(recipe, utterances, console, ranks.device)
        tokenizer.save(output)
        return tokenizer
    check = speech.check(recipe.loop.check_utterances)
    prepared = prepare(recipe, utterances, speech.data, ranks)
    for note in prepared.notes:
        console.print(note)
    folder = output / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with Progress(console=console, transient=True, disable=ranks.rank > 0) as progress:
        examples = prepared.examples(folder, progress)
    model = prepared.model
    run = Run(
        examples,
        prepared.plan,
        recipe.optimizer,
        recipe.loop,
        recipe.data.workers,
        folder,
        _identity(recipe, utterances, ranks),
        None if check is None else lambda: check(_tokenizer(model, recipe)),
    )
    fit(model, run, ranks, console)
    tokenizer = _tokenizer(model, recipe)
    if ranks.rank == 0:
        tokenizer.save(output)
    return tokenizer.eval()


def outlook(recipe: Recipe, speech: Speech, ranks: Ranks) -> str:
    """What a run would do, in some lines; nothing is written. Raises ``ValueError`` as ``train`` does."""
    utterances = scan(speech.data)
    if isinstance(recipe, KMeansRecipe):
        return describe_kmeans(recipe, utterances)
    speech.check(recipe.loop.check_utterances)
    prepared = prepare(recipe, utterances, speech.data, ranks)
    return "\n".join([*prepared.notes, describe(recipe, prepared, ranks.device)])


def started_from(recipe: Recipe, folder: str) -> Recipe:
    """The recipe with another encoder to start from, in place of an ``encoder`` of its own."""
    match recipe:
        case KMeansRecipe():
            return replace(recipe, encoder=folder)
        case PretrainRecipe():
            return replace(recipe, start=folder, encoder=None)
        case _:
            return replace(recipe, start=folder)


def _tokenizer(model: StageModel, recipe: TrainedRecipe) -> Tokenizer:
    """What the model has become; it reads no more at once than it has heard in training, and 30 s at most."""
    made = model.tokenizer(recipe.name)
    made.window = Window.within(min(recipe.data.max_seconds, 30.0))
    return made


def _identity(recipe: TrainedRecipe, utterances: Sequence[Utterance], ranks: Ranks) -> Mapping[str, Any]:
    """What runs must share to go on from one another: all that changes what is learnt."""
    values = asdict(recipe)
    for section, free in {
        "loop": ("log_every", "check_every", "checkpoint_minutes", "tensorboard", "recompute", "check_utterances"),
        "data": ("workers",),
    }.items():
        for name in free:
            del values[section][name]
    return {
        "stage": type(recipe).__name__.removesuffix("Recipe").lower(),
        **values,
        "utterances": digest((utterance.key,) for utterance in utterances),
        "processes": ranks.size,
    }
