"""A stream: samples in, in pieces of any size, and the tokens of the frames that are final out."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spintok.data.audio import AudioError, mono
from spintok.data.resampling import StreamResampler
from spintok.streaming.engine import Engine, Result
from spintok.streaming.state import Heard, from_bytes, to_bytes
from spintok.streaming.tokens import StreamTokens

__all__ = ["Stream"]


class Stream:
    """Tokens while audio arrives; ``Tokenizer.stream`` opens one.

    The codes are those of ``Tokenizer.encode(audio, latency=...)`` for the same samples, however they are cut. A stream
    is for one thread at a time, but ``feed`` and ``finish`` may be called while another thread steps its pool.
    """

    def __init__(self, engine: Engine, state: bytes | None = None) -> None:
        """A new stream, or one that goes on from a ``state``. Raises ``ValueError`` if that cannot be used."""
        self.engine = engine
        self.heard = Heard(engine) if state is None else from_bytes(engine, state)
        self.session = self.heard.session

    @property
    def latency(self) -> float:
        """Seconds of algorithmic latency: so long after its beginning a frame's code is final, at the latest."""
        return self.engine.policy.seconds

    @property
    def sample_rate(self) -> int | None:
        """Samples per second of the input; None before the first push."""
        return None if self.heard.resampler is None else self.heard.resampler.rate

    @property
    def num_frames(self) -> int:
        """Final frames so far."""
        return self.session.frames

    def push(self, samples: Any, sample_rate: int) -> StreamTokens:
        """The tokens of the frames that these samples make final; often there are none.

        Args:
            samples: (S,) floats in [-1, 1] or signed integers at full scale, any number of them; or (channels, S) to be
                averaged.
            sample_rate: samples per second, the same at each push.

        Raises:
            AudioError: the samples are not usable audio, the rate changed, or the stream is closed. It stays as it was.
        """
        self.feed(samples, sample_rate)
        return self.take(self._steps())

    def push_features(self, samples: Any, sample_rate: int, layer: int | None = None) -> Tensor:
        """As ``push``, but the features (T, D) float32 of these frames in ``layer``, by default that of the codes.

        Raises:
            AudioError: as ``push``.
            ValueError: there is no such layer, or it is above that of the codes.
        """
        layers = [self._layer(layer)]
        self.feed(samples, sample_rate)
        return self._features(self._steps(layers))

    def close(self) -> StreamTokens:
        """The tokens of the remaining frames. After it there is nothing to push."""
        self.finish()
        return self.take(self._steps())

    def close_features(self, layer: int | None = None) -> Tensor:
        """As ``close``, but the features, as in ``push_features``."""
        layers = [self._layer(layer)]
        self.finish()
        return self._features(self._steps(layers))

    def steps(self) -> Iterator[StreamTokens]:
        """The tokens of each step that the samples of ``feed``, or ``finish``, made due: a chunk at a time."""
        while self.session.due:
            yield self.take(self.engine.step([self.session]))

    def feed(self, samples: Any, sample_rate: int) -> NDArray[np.float32]:
        """Take samples as ``push`` does, and compute nothing yet: ``steps`` or ``StreamPool.step`` will.

        Returns the samples at 16 kHz that they complete, for others that listen (``spintok.streaming.turns``).
        """
        return self.add(self.check(samples, sample_rate), sample_rate)

    def check(self, samples: Any, sample_rate: int) -> NDArray[np.float32]:
        """The samples as (S,) float32 at their own rate, if the stream can take them. Raises ``AudioError``."""
        waveform = mono(samples, sample_rate)
        if self.session.ended:
            raise AudioError("the stream is closed: open another one")
        if self.sample_rate not in (None, sample_rate):
            raise AudioError(f"the stream began with {self.sample_rate} Hz; {sample_rate} Hz need another stream")
        return waveform

    def add(self, waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
        """Take what ``check`` returned. Returns the same as ``feed``."""
        if self.heard.resampler is None:
            self.heard.resampler = StreamResampler(int(sample_rate))
        resampled = self.heard.resampler.push(waveform)
        self.session.add(resampled)
        return resampled

    def finish(self) -> NDArray[np.float32]:
        """Say that no more samples will come, and compute nothing yet. Saying so again changes nothing.

        Returns the last samples at 16 kHz.
        """
        last: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        if self.heard.resampler is not None and not self.session.ended:
            last = self.heard.resampler.finish()
            self.session.add(last)
        self.session.ended = True
        return last

    def state(self) -> bytes:
        """All that the stream remembers, to go on elsewhere: ``Tokenizer.stream(state=...)``.

        Always the same number of bytes for a latency and a rate. It is in the format of safetensors and names the
        tokenizer's fingerprint.

        Raises:
            ValueError: samples wait for ``StreamPool.step``.
        """
        return to_bytes(self.heard)

    def take(self, results: Sequence[Result]) -> StreamTokens:
        """The tokens of the results of the session's last steps."""
        codes: NDArray[np.int32] = np.concatenate(
            [np.zeros(0, dtype=np.int32), *(result.codes[0] for result in results)]
        )
        start = self.session.frames - len(codes)
        continues = bool(len(codes)) and int(codes[0]) == self.heard.last_code
        if len(codes):
            self.heard.last_code = int(codes[-1])
        return StreamTokens(
            codes, self.engine.codebooks[0].config.size, grid=self.engine.grid, start=start, continues=continues
        )

    def _steps(self, layers: Sequence[int] = ()) -> list[Result]:
        results = []
        while self.session.due:
            results += self.engine.step([self.session], layers)
        return results

    def _layer(self, layer: int | None) -> int:
        top = self.engine.featurizer.layer
        self.engine.featurizer.check_layers([top if layer is None else layer])
        if layer is not None and layer > top:
            raise ValueError(f"a stream computes the layers up to that of the codes, {top}; got layer {layer}")
        return top if layer is None else layer

    def _features(self, results: Sequence[Result]) -> Tensor:
        # The codes are not returned, but tokens may follow.
        self.take(results)
        empty = torch.zeros(0, self.engine.featurizer.encoder.num_features, device=self.engine.device)
        return torch.cat([empty, *(result.features[0] for result in results)])
