"""Steps of encoders that need whole recordings: each step encodes a window of history, chunk and look-ahead.

What a frame hears depends on the window, so codes differ from those of a full pass; ``spintok bench stream`` prints by
how much. A step costs as much as encoding the window.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from spintok.frames import num_samples
from spintok.models.base import FeatureExtractor
from spintok.streaming.policy import Policy

__all__ = ["WindowSteps"]

_HISTORY_SECONDS = 8


class WindowSteps:
    """Steps by windows; see ``spintok.streaming.engine.Steps``.

    Attributes:
        history: frames before the chunk that a window holds once they have been heard: 8 s, or what the extractor
            needs.
    """

    def __init__(self, encoder: FeatureExtractor, policy: Policy) -> None:
        self.encoder = encoder
        self.policy = policy
        self.history = _HISTORY_SECONDS * encoder.grid.rate if encoder.has_layers else encoder.context_frames

    def features(self, waveform: Tensor, frames: int, history: int, layers: Sequence[int]) -> list[Tensor]:
        """Features (frames, D) of each layer, from ``history + frames`` frames of a waveform (S,)."""
        window = waveform[None, : num_samples(history + frames, self.encoder.grid)]
        states, _ = self.encoder.hidden_states(window, torch.tensor([window.shape[1]]).to(window.device), layers=layers)
        return [state[0, history:] for state in states]
