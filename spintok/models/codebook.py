"""Codebooks: an optional head, and the codewords that features are assigned to."""

from dataclasses import dataclass
from typing import Literal

import torch
from spintok_kernels import assign
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Codebook", "CodebookConfig"]

Metric = Literal["dot", "l2"]


@dataclass(frozen=True)
class CodebookConfig:
    """The shape of a codebook.

    Attributes:
        name: "primary" gives the tokens; "auxiliary" trains the encoder.
        size: K, the number of codewords.
        features: D, the width of the encoder's features.
        width: E, the width of the codewords; equal to D without a projection.
        metric: "dot": cosine of unit vectors (Spin); "l2": nearest codeword (K-means).
        projection: whether a linear layer with bias takes features to embeddings.
    """

    name: str
    size: int
    features: int
    width: int
    metric: Metric
    projection: bool

    def __post_init__(self) -> None:
        if self.metric not in ("dot", "l2"):
            raise ValueError(f"codebook {self.name!r}: metric must be 'dot' or 'l2', got {self.metric!r}")
        if min(self.size, self.features, self.width) < 1:
            raise ValueError(f"codebook {self.name!r}: size, features and width must be at least 1")
        if not self.projection and self.features != self.width:
            raise ValueError(f"codebook {self.name!r}: without a projection, width must equal features")


class Codebook(nn.Module):
    """Features to codes.

    With the metric "dot" a feature's embedding is projected and scaled to unit length, and so are the codewords;
    its code is the codeword of the highest cosine (Chang et al. 2023, "Self-supervised Fine-tuning for Improved
    Content Representations by Speaker-invariant Clustering", section 2). With "l2" it is the nearest codeword.
    """

    def __init__(self, config: CodebookConfig) -> None:
        super().__init__()
        self.config = config
        self.projection = nn.Linear(config.features, config.width) if config.projection else None
        self.codewords = nn.Parameter(torch.empty(config.size, config.width))
        nn.init.normal_(self.codewords)

    def embed(self, features: Tensor) -> Tensor:
        """Embeddings (..., E) of features (..., D); unit length with the metric "dot"."""
        z: Tensor = features if self.projection is None else self.projection(features)
        return F.normalize(z, dim=-1) if self.config.metric == "dot" else z

    def normalized_codewords(self) -> Tensor:
        """The codewords (K, E) as they are compared: unit rows with the metric "dot"."""
        return F.normalize(self.codewords, dim=-1) if self.config.metric == "dot" else self.codewords

    @torch.no_grad()
    def codes(self, features: Tensor) -> Tensor:
        """The code of each row of features (N, D): (N,) int32 on the same device."""
        codes: Tensor = assign(
            self.embed(features).contiguous(), self.normalized_codewords(), metric=self.config.metric
        )
        return codes
