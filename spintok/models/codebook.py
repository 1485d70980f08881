"""Codebooks: an optional projection, and the codewords to which features are assigned."""

from collections.abc import ItemsView, Iterable, ValuesView
from dataclasses import dataclass
from typing import Literal, cast

import torch
from spintok_kernels import PreparedCodebook, assign, prepare
from torch import Tensor, nn
from torch.nn import functional as F

from spintok.models.products import linear

__all__ = ["Codebook", "CodebookConfig", "Codebooks"]

# A limit that no codebook comes near; more is a damaged configuration.
_LARGEST = 1 << 24

Metric = Literal["dot", "l2"]


@dataclass(frozen=True)
class CodebookConfig:
    """The shape of a codebook.

    Attributes:
        name: "primary" for the codebook that gives the tokens, "auxiliary" for one that helps to train the encoder.
        size: K, the number of codewords.
        features: D, the width of the encoder's features.
        width: E, the width of the codewords; equal to D without a projection.
        metric: "dot" compares unit vectors by cosine (Spin), "l2" takes the nearest codeword (K-means).
        projection: whether a linear layer with bias maps features to embeddings.
    """

    name: str
    size: int
    features: int
    width: int
    metric: Metric
    projection: bool

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.projection, bool):
            raise ValueError("a codebook's name must be a text, and projection true or false")
        for size in (self.size, self.features, self.width):
            if not isinstance(size, int) or isinstance(size, bool) or size > _LARGEST:
                raise ValueError(
                    f"codebook {self.name!r}: sizes must be integers up to {_LARGEST}, got {str(size)[:80]}"
                )
        if self.metric not in ("dot", "l2"):
            raise ValueError(f"codebook {self.name!r}: metric must be 'dot' or 'l2', got {self.metric!r}")
        if min(self.size, self.features, self.width) < 1:
            raise ValueError(f"codebook {self.name!r}: size, features and width must be at least 1")
        if not self.projection and self.features != self.width:
            raise ValueError(f"codebook {self.name!r}: without a projection, width must equal features")


class Codebook(nn.Module):
    """Assigns features to codewords.

    With the metric "dot", features are projected, embeddings and codewords are scaled to unit length, and the code is
    the codeword of the highest cosine (Chang et al. 2023, "Self-supervised Fine-tuning for Improved Content
    Representations by Speaker-invariant Clustering", section 2). With "l2" the code is the nearest codeword.
    """

    def __init__(self, config: CodebookConfig) -> None:
        super().__init__()
        self.config = config
        self.projection = nn.Linear(config.features, config.width) if config.projection else None
        self.codewords = nn.Parameter(torch.empty(config.size, config.width))
        # On the meta device it would make torch import its compiler, which takes seconds.
        if not self.codewords.is_meta:
            nn.init.normal_(self.codewords)

    def embed(self, features: Tensor) -> Tensor:
        """Embeddings (..., E) of features (..., D), of unit length with the metric "dot"."""
        z = self._project(features)
        return F.normalize(z, dim=-1) if self.config.metric == "dot" else z

    def normalized_codewords(self) -> Tensor:
        """The codewords (K, E), of unit length with the metric "dot"."""
        return F.normalize(self.codewords, dim=-1) if self.config.metric == "dot" else self.codewords

    @torch.no_grad()
    def prepare(self) -> PreparedCodebook:
        """The present codewords in the layout that ``codes`` reads, to keep for many calls while they do not change."""
        return prepare(self.normalized_codewords(), self.config.metric)

    @torch.no_grad()
    def codes(self, features: Tensor, prepared: PreparedCodebook | None = None) -> Tensor:
        """The code of each row of features (N, D): (N,) int32 on the same device. ``prepared`` saves preparing anew."""
        # The length of a row does not change its code, and on a GPU its rounding depends on the number of rows.
        z = self._project(features) if features.is_cuda else self.embed(features)
        return assign(z.contiguous(), prepared or self.prepare())

    def _project(self, features: Tensor) -> Tensor:
        return features if self.projection is None else linear(self.projection, features)


class Codebooks(nn.ModuleDict):
    """Codebooks by name, in order; the first one is the primary, whose codes are the tokens.

    Raises:
        ValueError: there is no codebook, two have the same name, or a name is impossible.
    """

    def __init__(self, codebooks: Iterable[Codebook]) -> None:
        codebooks = list(codebooks)
        names = [codebook.config.name for codebook in codebooks]
        if not names:
            raise ValueError("a tokenizer needs at least one codebook")
        if len(set(names)) != len(names):
            raise ValueError(f"codebooks must have different names, got {', '.join(names)}")
        super().__init__()
        for name, codebook in zip(names, codebooks, strict=True):
            # torch keeps modules as attributes, so a name must not hide one, and dots separate names in a state dict.
            if not name or "." in name or name in dir(self):
                raise ValueError(f"a codebook cannot be called {name!r}; choose another name")
            self[name] = codebook

    @property
    def codebook_names(self) -> list[str]:
        """The names in order, the primary first."""
        return list(self.keys())

    @property
    def primary_codebook(self) -> Codebook:
        """The first codebook."""
        return next(iter(self.values()))

    def __getitem__(self, name: str) -> Codebook:
        return cast(Codebook, super().__getitem__(name))

    def values(self) -> ValuesView[Codebook]:
        return cast(ValuesView[Codebook], super().values())

    def items(self) -> ItemsView[str, Codebook]:
        return cast(ItemsView[str, Codebook], super().items())
