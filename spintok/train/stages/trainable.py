"""An encoder some of whose layers train: the rest runs without gradient."""

import torch
from torch import Tensor, nn

from spintok.masks import padding_mask
from spintok.models.encoder import Encoder

__all__ = ["TrainableEncoder"]


class TrainableEncoder(nn.Module):
    """``encoder`` up to ``layer``, of which the highest ``train_layers`` train.

    Args:
        encoder: shares its weights with this module.
        layer: the layer that is read; the last by default.
        train_layers: of the layers up to it; all by default.
        train_front_end: whether what comes before the first layer trains too; then all layers must.

    Raises:
        ValueError: no such layer, or a front end that trains below layers that do not.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        layer: int | None = None,
        train_layers: int | None = None,
        train_front_end: bool = True,
    ) -> None:
        super().__init__()
        layers = encoder.config.layers
        self.layer = layers if layer is None else layer
        if not 1 <= self.layer <= layers:
            raise ValueError(f"layer must be in 1 ... {layers}, the layers of the encoder, got {layer}")
        self.encoder = encoder.truncated(self.layer)
        trained = self.layer if train_layers is None else train_layers
        if trained > self.layer:
            raise ValueError(f"train_layers must be at most {self.layer}, the layers that are used, got {train_layers}")
        if train_front_end and trained < self.layer:
            raise ValueError(f"train_front_end needs all {self.layer} layers to train, got train_layers = {trained}")
        self.frozen = None if train_front_end else self.layer - trained
        """The highest layer that does not train (0: what comes before the layers); None when everything trains."""
        if self.frozen is not None:
            self.encoder.requires_grad_(False)
            for index in range(self.frozen, self.layer):
                self.encoder.layers[index].requires_grad_()

    def train(self, mode: bool = True) -> "TrainableEncoder":
        """Dropout acts where something trains, and nowhere else."""
        super().train(mode)
        if self.frozen is not None:
            self.encoder.eval()
            for index in range(self.frozen, self.layer):
                self.encoder.layers[index].train(mode)
        return self

    @torch.no_grad()
    def lower(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The frozen part: (B, S) waveforms of ``lengths`` (B,) samples to (B, T, D) and frames (B,)."""
        assert self.frozen is not None
        features, counts = self.encoder.local_features(waveforms, lengths)
        mask = padding_mask(counts, features.shape[1])
        return self.encoder.transformer(features, mask, layers=[self.frozen])[0], counts

    def forward(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, T, D), zero where padded, and frame counts (B,).

        ``inputs`` are waveforms (B, S) with lengths in samples, or what ``lower`` gave, with lengths in frames.
        """
        if self.frozen is None:
            features, counts = self.encoder(inputs, lengths, layer=self.layer)
            return features, counts
        features, counts = self.lower(inputs, lengths) if inputs.ndim == 2 else (inputs, lengths)
        mask = padding_mask(counts, features.shape[1])
        return self.encoder.upper(features, mask, above=self.frozen, layers=[self.layer])[0], counts
