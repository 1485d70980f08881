"""The interface of everything that turns waveforms into features: SSL encoders, MFCC, w2v-BERT, s3prl upstreams.

Layers are numbered 0 ... ``num_layers``, and "no layer given" always means the last one. MFCC have no transformer
layers: their ``num_layers`` is 0, and layer 0 is the MFCC themselves.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from spintok.frames import GRID, FrameGrid
from spintok.models.statistics import WaveformStatistics

__all__ = ["FeatureExtractor"]


class FeatureExtractor(nn.Module, ABC):
    """Waveforms at 16 kHz to feature vectors at a constant rate, 50 per second unless ``grid`` says otherwise.

    The features of an utterance must not depend on the other utterances in its batch.
    """

    type_name: ClassVar[str]
    """The value of ``type`` in the ``encoder`` section of config.json."""

    has_layers: ClassVar[bool] = True
    """False for extractors that never have more than layer 0."""

    grid: FrameGrid = GRID
    """Where the frames lie."""

    runs_in_threads: ClassVar[bool] = True
    """Whether several threads may call it at once."""

    context_frames: int
    """Frames on either side of a chunk of long audio that should be read as context."""

    @property
    @abstractmethod
    def num_features(self) -> int:
        """D, the width of the features."""

    @property
    @abstractmethod
    def num_layers(self) -> int:
        """The number of the last layer; layer 0 is the input of layer 1."""

    @abstractmethod
    def hidden_states(
        self,
        waveforms: Tensor,
        lengths: Tensor | None = None,
        *,
        layers: Sequence[int] | None = None,
        statistics: WaveformStatistics | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Features of several layers from one pass.

        Args:
            waveforms: (B, S) float32 at 16 kHz. Samples after the end of an utterance are ignored.
            lengths: (B,) int64, the number of samples of each utterance; None if nothing is padded.
            layers: numbers in 0 ... ``num_layers``, in the order of the result; all layers by default.
            statistics: the result of ``statistics`` for the whole recordings, if the waveforms are parts of them.

        Returns:
            Features (B, T, D) of each layer, zero where padded, and frame counts (B,). An utterance of fewer than
            ``grid.reach`` samples has 0 frames.

        Raises:
            ValueError: wrong shapes, a length above S, or a layer that does not exist.
        """

    @abstractmethod
    def statistics(self, blocks: Iterable[Tensor]) -> WaveformStatistics | None:
        """What ``hidden_states`` needs to know about a whole recording to encode parts of it; None if nothing.

        ``blocks`` are consecutive parts (S_i,) of one waveform, float32 at 16 kHz. They are not kept.
        """

    @abstractmethod
    def truncated(self, layers: int) -> Self:
        """The same extractor, sharing its weights, with only the layers 0 ... ``layers``.

        Raises:
            ValueError: there are not so many layers.
        """

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """The ``encoder`` section of config.json without ``type``: all that is needed to rebuild the module."""

    @classmethod
    @abstractmethod
    def from_config(cls, values: Mapping[str, Any]) -> Self:
        """The module that ``to_config`` describes; its weights are loaded afterwards.

        Raises:
            ValueError: a field is unknown, missing or impossible.
        """

    def identity(self) -> dict[str, Any]:
        """The part of the description that fingerprints hash: its type, and ``to_config``."""
        return {"type": self.type_name, **self.to_config()}

    def forward(
        self,
        waveforms: Tensor,
        lengths: Tensor | None = None,
        *,
        layer: int | None = None,
        statistics: WaveformStatistics | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Features (B, T, D) of one layer, by default the last, and frame counts (B,): see ``hidden_states``."""
        layers = [self.num_layers if layer is None else layer]
        features, counts = self.hidden_states(waveforms, lengths, layers=layers, statistics=statistics)
        return features[0], counts

    def check_layers(self, layers: Sequence[int]) -> None:
        """Raise ``ValueError`` unless all ``layers`` exist."""
        if not layers or not all(0 <= layer <= self.num_layers for layer in layers):
            raise ValueError(f"this encoder has layers 0 ... {self.num_layers}, asked for {list(layers)}")

    def layer_name(self, layer: int) -> str:
        """The name of a layer in tables and figures, such as "layer_6"."""
        return f"layer_{layer}"
