"""What the stages that train by gradient have in common: a model that is a tokenizer in the making."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spintok.masks import length_mask
from spintok.models.codebook import Codebook, Codebooks
from spintok.tokenizer import Tokenizer
from spintok.train.batching.examples import Batch
from spintok.train.stages.trainable import TrainableEncoder

__all__ = ["StageModel", "Step", "full_precision", "valid_frames"]


class Step(NamedTuple):
    """The loss of a batch, and figures to watch, detached numbers that are the same on all ranks."""

    loss: Tensor
    figures: dict[str, Tensor]


class StageModel(nn.Module):
    """An encoder of which a part trains, and codebooks over its features; a subclass knows the loss.

    Under data parallelism the mean over ranks of the loss, and of its gradients, is that of one process with the
    whole batch.
    """

    watches_collapse = False
    """Whether a codebook with a perplexity below 2 means that the run has failed."""

    def __init__(self, encoder: TrainableEncoder, codebooks: Sequence[Codebook]) -> None:
        super().__init__()
        self.encoder = encoder
        self.codebooks = Codebooks(codebooks)

    @property
    def primary(self) -> Codebook:
        """The codebook that gives the tokens."""
        return self.codebooks.primary_codebook

    def forward(self, batch: Batch) -> Step:
        raise NotImplementedError

    @torch.no_grad()
    def normalize_codewords(self) -> None:
        """Scale all codewords to unit length, in place: before each forward, as Spin does."""
        for book in self.codebooks.values():
            book.codewords.copy_(F.normalize(book.codewords, dim=1))

    def tokenizer(self, name: str) -> Tokenizer:
        """The tokenizer as it stands, sharing these weights; the first codebook is the primary."""
        training = self.training
        made = Tokenizer(self.encoder.encoder, self.codebooks.values(), layer=self.encoder.layer, name=name)
        # A tokenizer puts its parts into evaluation mode, and these are the model's own.
        self.train(training)
        return made

    def collapsed(self, figures: Mapping[str, float]) -> str | None:
        """What to say when a codebook has collapsed."""
        for name, value in figures.items():
            if self.watches_collapse and name.startswith("perplexity_") and value < 2:
                book = name.removeprefix("perplexity_")
                return (
                    f"codebook {book!r} has collapsed: perplexity {value:.2f}; "
                    "train fewer layers, lower the learning rate, or add labels"
                )
        return None


def valid_frames(features: Tensor, counts: Tensor) -> Tensor:
    """Features (B, T, D) without padding: (N, D), utterance by utterance, in full precision."""
    return full_precision(features[length_mask(counts, features.shape[1])])


def full_precision(x: Tensor) -> Tensor:
    """What autocast left in 16 bits as float32; other numbers as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
