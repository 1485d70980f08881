"""What the stages share that train by gradient descent: the corpus, the model, and a stage that is ready to run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from spintok.data.manifest import Utterance, scan
from spintok.frames import SAMPLE_RATE
from spintok.models.codebook import Codebook, Codebooks
from spintok.progress import Progress
from spintok.tokenizer import Tokenizer
from spintok.train.batching.examples import Batch, Examples, Recordings
from spintok.train.batching.plan import BatchPlan, samples_from_headers
from spintok.train.distributed import Distributed
from spintok.train.recipe import TrainedRecipe
from spintok.train.trainable import TrainableEncoder

__all__ = ["Corpus", "Learner", "Stage", "StageModel", "Step", "full_precision"]


@dataclass(frozen=True)
class Corpus:
    """The speech to train on.

    Attributes:
        path: the folder or manifest that lists it; a manifest may hold transcripts.
        utterances: the list.
        samples: (N,) length of each utterance at 16 kHz.
    """

    path: Path
    utterances: Sequence[Utterance]
    samples: NDArray[np.int64]

    @classmethod
    def open(cls, path: Path) -> "Corpus":
        """List a folder or manifest and read the file headers. Raises ``ValueError``."""
        utterances = scan(path)
        return cls(path, utterances, samples_from_headers(utterances))

    def recordings(self, recipe: TrainedRecipe) -> Recordings:
        """The recordings, cropped as the recipe says."""
        return Recordings(self.utterances, round(recipe.data.max_seconds * SAMPLE_RATE))


class Step(NamedTuple):
    """The loss of a batch, and statistics to log: detached scalars that are equal in all processes."""

    loss: Tensor
    statistics: dict[str, Tensor]


class Learner(nn.Module):
    """A model that the loop trains; subclasses define the loss.

    With data parallelism, the mean over processes of the loss and of its gradients equals those of a single process
    with the whole batch.
    """

    skips_layers = False
    """Whether a forward pass may leave out weights that train."""

    def forward(self, batch: Batch) -> Step:
        raise NotImplementedError

    def normalize_codewords(self) -> None:
        """Called before each forward pass and at the end of training."""

    def collapse_message(self, statistics: Mapping[str, float]) -> str | None:
        """An error message if the statistics show that training has failed, else None."""
        return None


class StageModel(Learner):
    """An encoder whose upper layers train, and codebooks on its features; subclasses define the loss."""

    detects_collapse = False
    """Whether a codebook with a perplexity below 2 is an error."""

    def __init__(self, encoder: TrainableEncoder, codebooks: Sequence[Codebook]) -> None:
        super().__init__()
        self.encoder = encoder
        self.codebooks = Codebooks(codebooks)
        self.skips_layers = encoder.encoder.config.layer_dropout > 0

    @property
    def primary(self) -> Codebook:
        """The codebook that provides the tokens."""
        return self.codebooks.primary_codebook

    @torch.no_grad()
    def normalize_codewords(self) -> None:
        """Scale all codewords to unit length, in place; Spin does this before each forward pass."""
        for book in self.codebooks.values():
            book.codewords.copy_(F.normalize(book.codewords, dim=1))

    def tokenizer(self, name: str) -> Tokenizer:
        """The tokenizer at this point of the training, sharing the weights; the first codebook is the primary one."""
        training = self.training
        tokenizer = Tokenizer(self.encoder.encoder, self.codebooks.values(), layer=self.encoder.layer, name=name)
        # Tokenizer puts its modules into evaluation mode, and they belong to this model too.
        self.train(training)
        return tokenizer

    def collapse_message(self, statistics: Mapping[str, float]) -> str | None:
        """An error message if a codebook has collapsed, else None."""
        for name, value in statistics.items():
            if self.detects_collapse and name.startswith("perplexity_") and value < 2:
                book = name.removeprefix("perplexity_")
                return (
                    f"codebook {book!r} has collapsed: perplexity {value:.2f}; "
                    "train fewer layers, lower the learning rate, or add labels"
                )
        return None


@dataclass(frozen=True)
class Stage:
    """A stage that is ready to run.

    Attributes:
        model: the model with its initial weights.
        plan: the plan of the batches.
        make_examples: returns the function that prepares batches. It may compute labels or features first, which takes
            long; it stores them in the given folder.
        notes: messages for the user, such as how many utterances are skipped.
        validate: further metrics of the model on utterances of a development set, given with the folder or manifest
            that lists them; None if the stage has none.
    """

    model: StageModel
    plan: BatchPlan
    make_examples: Callable[[Path, Progress], Examples]
    notes: tuple[str, ...] = ()
    validate: Callable[[Sequence[Utterance], Path], Mapping[str, float]] | None = None

    @staticmethod
    def plan_batches(recipe: TrainedRecipe, samples: NDArray[np.int64], distributed: Distributed) -> BatchPlan:
        """The plan for utterances of ``samples`` (N,) samples, 0 for those to skip."""
        return BatchPlan.of(samples, recipe.data, recipe.loop.seed, distributed.rank, distributed.world_size)


def full_precision(x: Tensor) -> Tensor:
    """``x`` as float32 if autocast left it in 16 bits."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
