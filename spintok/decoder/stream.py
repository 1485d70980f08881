"""Decode codes as they come: the network and the synthesis keep their state between pieces."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spintok.decoder.network import Network, Smoother, StackStream
from spintok.decoder.synthesis import Synthesizer
from spintok.frames import FrameGrid, num_samples

__all__ = ["DecoderStream"]


class DecoderStream:
    """One recording in pieces; made by ``Decoder.stream``.

    All samples together equal those of ``Decoder.decode`` up to float rounding, however the codes are cut.
    """

    def __init__(
        self, network: Network, grid: FrameGrid, voice: Tensor, check: Callable[[Any], NDArray[np.int32]]
    ) -> None:
        """Args: ``voice`` (1,) is the number of the voice; ``check`` makes an array of codes (T,) of what is pushed."""
        self._network = network
        self._voice = voice
        self._check = check
        self._stack = StackStream(network.stack)
        self._smoother = Smoother(network.config.smoothing)
        self._synthesizer = Synthesizer()
        self._grid = grid
        self._frames = 0
        self._closed = False

    def push(self, codes: Any) -> Tensor:
        """The samples (S,) float32 that are complete after these codes (T,) of the next T frames.

        Raises:
            ValueError: codes outside the codebook, or the stream is closed.
        """
        return self._push(self._check(codes), last=False)

    def close(self) -> Tensor:
        """The remaining samples (S,); afterwards the stream takes no codes."""
        samples = self._push(np.zeros(0, dtype=np.int32), last=True)
        self._closed = True
        return samples

    @torch.inference_mode()
    def _push(self, codes: NDArray[np.int32], *, last: bool) -> Tensor:
        if self._closed:
            raise ValueError("this stream is closed; open another one with Decoder.stream")
        self._frames += len(codes)
        if not self._frames:
            return torch.zeros(0)
        embedded = self._network.embed(torch.from_numpy(codes).long().to(self._voice.device)[None], self._voice)
        vectors = self._network.vectors(self._stack.push(embedded, last=last))
        parameters = self._network.parameters_of(self._smoother.push(vectors, last=last))
        samples = self._synthesizer.push(parameters)
        if not last:
            return samples
        return torch.cat([samples, self._synthesizer.close(num_samples(self._frames, self._grid))])
