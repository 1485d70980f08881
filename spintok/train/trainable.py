"""An encoder whose upper layers train while the lower ones are frozen."""

import torch
from torch import Tensor, nn

from spintok.masks import padding_mask
from spintok.models.encoder import Encoder

__all__ = ["TrainableEncoder"]


class TrainableEncoder(nn.Module):
    """The layers of ``encoder`` up to ``layer``, of which the top ``train_layers`` train.

    Args:
        encoder: this module shares its weights.
        layer: the layer whose features are used; the last by default.
        train_layers: number of layers that train, counted down from ``layer``; all by default.
        train_front_end: whether the convolutions and everything else below the first layer train too; this needs all
            layers to train.

    Raises:
        ValueError: there is no such layer, or the front end would train below frozen layers.
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
        """Number of frozen layers; 0 if only the front end is frozen, None if everything trains."""
        if self.frozen is not None:
            self.encoder.requires_grad_(False)
            for index in range(self.frozen, self.layer):
                self.encoder.layers[index].requires_grad_()

    def train(self, mode: bool = True) -> "TrainableEncoder":
        """Set the mode of the layers that train; frozen layers stay in evaluation mode, without dropout."""
        super().train(mode)
        if self.frozen is not None:
            self.encoder.eval()
            for index in range(self.frozen, self.layer):
                self.encoder.layers[index].train(mode)
        return self

    @torch.no_grad()
    def frozen_features(self, waveforms: Tensor, lengths: Tensor, chunk: int | None = None) -> tuple[Tensor, Tensor]:
        """Features (B, T, D) of the frozen layers and frame counts (B,), for waveforms (B, S) of ``lengths`` (B,)."""
        assert self.frozen is not None
        features, counts = self.encoder.local_features(waveforms, lengths, chunk=chunk)
        mask = padding_mask(counts, features.shape[1])
        return self.encoder.transformer(features, mask, layers=[self.frozen], chunk=chunk)[0], counts

    def forward(self, inputs: Tensor, lengths: Tensor, chunk: int | None = None) -> tuple[Tensor, Tensor]:
        """Features (B, T, D), zero where padded, and frame counts (B,).

        ``inputs`` are waveforms (B, S) with lengths in samples, or (B, T, D) from ``frozen_features`` with lengths in
        frames. ``chunk`` is as in ``Encoder.hidden_states``.
        """
        if self.frozen is None:
            layers, counts = self.encoder.hidden_states(inputs, lengths, layers=[self.layer], chunk=chunk)
            return layers[0], counts
        features, counts = self.frozen_features(inputs, lengths, chunk) if inputs.ndim == 2 else (inputs, lengths)
        mask = padding_mask(counts, features.shape[1])
        return self.encoder.upper(features, mask, above=self.frozen, layers=[self.layer], chunk=chunk)[0], counts
