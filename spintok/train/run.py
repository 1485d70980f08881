"""Run a training stage: from a recipe and speech to the folder of a tokenizer or decoder."""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from spintok._files import digest, lock, remove_orphans
from spintok.chunking import Window
from spintok.data.manifest import Utterance, scan
from spintok.decoder import Decoder
from spintok.progress import Progress, no_progress
from spintok.tokenizer import Tokenizer
from spintok.train import stages
from spintok.train.batching.chunks import WithChunks
from spintok.train.distributed import Distributed
from spintok.train.loop import Run, fit
from spintok.train.recipe import DecoderRecipe, KMeansRecipe, Recipe, TrainedRecipe
from spintok.train.stages import decoder, kmeans
from spintok.train.stages.base import Corpus, StageModel
from spintok.train.validation import Validation

__all__ = ["TrainingData", "train"]

FOLDER = "training"
"""Subfolder of the tokenizer's folder for the checkpoints, the log and stored labels."""


@dataclass(frozen=True)
class TrainingData:
    """The speech of a run.

    Attributes:
        data: a folder or manifest to train on.
        dev: a folder or manifest to validate on.
        alignments: phone alignments of ``dev`` (``spintok.data.labels.alignment_files``).
    """

    data: Path
    dev: Path | None = None
    alignments: Path | None = None

    def validation(self, count: int) -> Validation | None:
        """The validation on ``count`` utterances of ``dev``, if there is one. Raises ``ValueError``."""
        if self.dev is None:
            if self.alignments is not None:
                raise ValueError("alignments belong to a development set: give --dev too")
            return None
        return Validation(scan(self.dev), count, self.alignments)


def train(
    recipe: Recipe,
    data: TrainingData,
    output: Path,
    distributed: Distributed,
    progress: Progress = no_progress,
    message: Callable[[str], None] = lambda text: None,
) -> Tokenizer | Decoder:
    """Run a stage and write its tokenizer or decoder to ``output``; after a crash, call it again and it resumes.

    ``output/training`` holds the checkpoints, ``log.csv``, ``checks.csv``, and labels or features that were computed
    once. It is not needed once the tokenizer is written.

    Args:
        recipe: the stage and its settings.
        data: the speech.
        output: folder to write.
        distributed: this process among those of the run.
        progress, message: report progress and print a line; pass silent ones in processes of rank above 0.

    Raises:
        ValueError: a recipe, recording or transcript cannot be used, another process is training in the folder, or the
            run failed; the message is one line.
        KeyboardInterrupt: SIGINT or SIGTERM came, and a checkpoint has been saved.
    """
    for name in ("encoder", "start", "tokenizer"):
        source = getattr(recipe, name, None)
        if isinstance(source, str) and output.exists() and Path(source).exists() and output.samefile(source):
            raise ValueError(f"{output}: the run starts from this folder and would replace it; give another --output")
    output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if distributed.rank == 0:
            stack.callback(_remove_if_empty, output)
            try:
                stack.enter_context(lock(output / ".lock"))
            except BlockingIOError:
                raise ValueError(
                    f"{output}: another process is training in this folder; wait for it, or give another --output"
                ) from None
            remove_orphans(output)
        return _train(recipe, data, output, distributed, progress, message)


def _remove_if_empty(folder: Path) -> None:
    """A run that fails before it writes anything leaves no folder."""
    with suppress(OSError):
        folder.rmdir()


def _train(
    recipe: Recipe,
    data: TrainingData,
    output: Path,
    distributed: Distributed,
    progress: Progress,
    message: Callable[[str], None],
) -> Tokenizer | Decoder:
    if isinstance(recipe, KMeansRecipe):
        return _cluster(recipe, scan(data.data), output, distributed, progress)
    if isinstance(recipe, DecoderRecipe):
        return _train_decoder(recipe, data, output, distributed, progress, message)
    corpus = Corpus.open(data.data)
    validation = data.validation(recipe.loop.check_utterances)
    stage = stages.build(recipe, corpus, distributed)
    folder = _work_folder(output, stage.notes, distributed, message)

    def check() -> Mapping[str, float]:
        assert validation is not None
        assert data.dev is not None
        metrics = validation(_tokenizer(stage.model, recipe))
        return metrics if stage.validate is None else metrics | dict(stage.validate(validation.utterances, data.dev))

    run = Run(
        WithChunks(stage.make_examples(folder, progress), recipe.chunks, recipe.loop.seed),
        stage.plan,
        recipe.optimizer,
        recipe.loop,
        recipe.data.workers,
        folder,
        _identity(recipe, corpus.utterances, distributed),
        None if validation is None else check,
    )
    fit(stage.model, run, distributed, progress, message)
    tokenizer = _tokenizer(stage.model, recipe)
    if distributed.rank == 0:
        tokenizer.save(output)
    return tokenizer.eval()


def _cluster(
    recipe: KMeansRecipe, utterances: Sequence[Utterance], output: Path, distributed: Distributed, progress: Progress
) -> Tokenizer:
    """K-means; every process does all of it, and that of rank 0 can be gone on from."""
    with ExitStack() as stack:
        if distributed.rank > 0:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spintok-")))
            return kmeans.run(recipe, utterances, folder, progress, distributed.device)
        folder = output / FOLDER
        stack.callback(_remove_if_empty, folder)
        folder.mkdir(exist_ok=True)
        remove_orphans(folder)
        tokenizer = kmeans.run(recipe, utterances, folder, progress, distributed.device)
        tokenizer.save(output)
        # Features are large, and nothing reads them again.
        kmeans.clean(folder)
        return tokenizer


def _train_decoder(
    recipe: DecoderRecipe,
    data: TrainingData,
    output: Path,
    distributed: Distributed,
    progress: Progress,
    message: Callable[[str], None],
) -> Decoder:
    if data.dev is not None:
        raise ValueError("a decoder is validated on the utterances that hold_out keeps: leave --dev out")
    corpus = Corpus.open(data.data)
    torch.manual_seed(recipe.loop.seed)
    stage = decoder.build(recipe, corpus, distributed)
    folder = _work_folder(output, stage.notes, distributed, message)
    run = Run(
        stage.prepare(folder, progress),
        stage.plan,
        recipe.optimizer,
        recipe.loop,
        recipe.data.workers,
        folder,
        _identity(recipe, corpus.utterances, distributed),
        stage.validate,
    )
    fit(stage.model, run, distributed, progress, message)
    stage.finish()
    if distributed.rank == 0:
        stage.model.decoder.save(output)
    return stage.model.decoder.eval()


def _work_folder(output: Path, notes: Iterable[str], distributed: Distributed, message: Callable[[str], None]) -> Path:
    """Tell the notes of a stage, and make the folder of its checkpoints."""
    for note in notes:
        message(note)
    folder = output / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    if distributed.rank == 0:
        remove_orphans(folder)
    return folder


def _tokenizer(model: StageModel, recipe: TrainedRecipe) -> Tokenizer:
    """The tokenizer of the model; it encodes chunks no longer than the utterances in training, and 30 s at most."""
    tokenizer = model.tokenizer(recipe.name)
    tokenizer.window = Window.within(min(recipe.data.max_seconds, 30.0))
    return tokenizer


def _identity(recipe: TrainedRecipe, utterances: Sequence[Utterance], distributed: Distributed) -> Mapping[str, Any]:
    """Everything that changes the result of a run: a run resumes only from a checkpoint with the same values."""
    values = asdict(recipe)
    for section, irrelevant in {
        "loop": ("log_every", "check_every", "checkpoint_minutes", "tensorboard", "recompute", "check_utterances"),
        "data": ("workers",),
    }.items():
        for name in irrelevant:
            del values[section][name]
    values.pop("analysis", None)
    return {
        "stage": type(recipe).__name__.removesuffix("Recipe").lower(),
        **values,
        "utterances": digest((utterance.key,) for utterance in utterances),
        "processes": distributed.world_size,
    }
