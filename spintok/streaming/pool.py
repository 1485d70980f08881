"""Many streams that are stepped together: sessions that come and go."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from torch import Tensor

from spintok.streaming.engine import Engine, Result
from spintok.streaming.stream import Stream
from spintok.streaming.tokens import StreamTokens, merge

__all__ = ["PoolFullError", "StreamPool"]


class PoolFullError(ValueError):
    """A pool holds as many streams as it may."""


class StreamPool:
    """Up to ``size`` streams of one tokenizer; ``Tokenizer.stream_pool`` makes one. A context manager.

    Streams share steps; on a CPU they are also divided among threads. Either way each gets the tokens that it would get
    alone. ``open``, ``remove`` and ``step`` are for one thread at a time; others may ``feed`` the streams
    meanwhile.

    Args:
        engine: what the streams share.
        size: the most streams that are open at once.
        workers: threads on a CPU; one for each core by default.
    """

    def __init__(self, engine: Engine, size: int, workers: int | None = None) -> None:
        if size < 1 or (workers is not None and workers < 1):
            raise ValueError(f"a pool needs at least 1 stream and 1 thread, got {size} and {workers}")
        self.engine = engine
        self.size = size
        self.streams: list[Stream] = []
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._workers = (workers or cores) if engine.device.type == "cpu" else 1
        self._threads = ThreadPoolExecutor(self._workers, "spintok-stream") if self._workers > 1 else None

    def open(self, state: bytes | None = None) -> Stream:
        """Another stream, new or from the ``state`` of one.

        Raises:
            PoolFullError: there are ``size`` already.
            ValueError: the state cannot be used.
        """
        if len(self.streams) >= self.size:
            raise PoolFullError(f"the pool is full: it holds {self.size} streams")
        stream = Stream(self.engine, state)
        self.streams.append(stream)
        return stream

    def push(self, samples: Mapping[Stream, Any], sample_rate: int) -> dict[Stream, StreamTokens]:
        """The tokens of the frames that the samples of each stream make final.

        Raises:
            AudioError: samples of a stream cannot be used; no stream has taken any of them.
            ValueError: a stream is not of this pool.
        """
        self._check(list(samples))
        waveforms = {stream: stream.check(part, sample_rate) for stream, part in samples.items()}
        for stream, waveform in waveforms.items():
            stream.add(waveform, sample_rate)
        return self._all(list(samples))

    def close(self, stream: Stream) -> StreamTokens:
        """The tokens of the remaining frames; the stream leaves the pool."""
        self._check([stream])
        stream.finish()
        tokens = self._all([stream])[stream]
        self.remove(stream)
        return tokens

    def remove(self, stream: Stream) -> None:
        """Forget a stream, which may go on alone. Raises ``ValueError`` if it is not of this pool."""
        self._check([stream])
        self.streams.remove(stream)

    def step(self, streams: Sequence[Stream] | None = None) -> dict[Stream, StreamTokens]:
        """One step of each of the ``streams``, by default all, that has samples for it: their tokens."""
        return {stream: tokens for stream, (tokens, _) in self.step_features(streams, ()).items()}

    def step_features(
        self, streams: Sequence[Stream] | None, layers: Sequence[int]
    ) -> dict[Stream, tuple[StreamTokens, list[Tensor]]]:
        """As ``step``, and the features (T, D) float32 of the frames in each of the ``layers``."""
        due = [stream for stream in (self.streams if streams is None else streams) if stream.session.due]
        size = max(1, min(self.engine.slots, -(-len(due) // self._workers)))
        groups = [due[i : i + size] for i in range(0, len(due), size)]
        steps = partial(self._group, layers)
        found = self._threads.map(steps, groups) if self._threads else map(steps, groups)
        results = [result for group in found for result in group]
        return {stream: (stream.take([result]), result.features) for stream, result in zip(due, results, strict=True)}

    def shutdown(self) -> None:
        """End the threads. Streams can be used on their own afterwards."""
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None

    def __enter__(self) -> "StreamPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def _group(self, layers: Sequence[int], group: Sequence[Stream]) -> list[Result]:
        return self.engine.step([stream.session for stream in group], layers)

    def _all(self, streams: Sequence[Stream]) -> dict[Stream, StreamTokens]:
        """Steps of the streams until none has samples for another."""
        parts: dict[Stream, list[StreamTokens]] = {stream: [] for stream in streams}
        while found := self.step(streams):
            for stream, tokens in found.items():
                parts[stream].append(tokens)
        return {stream: merge(found) if found else stream.take([]) for stream, found in parts.items()}

    def _check(self, streams: Sequence[Stream]) -> None:
        if any(stream not in self.streams for stream in streams):
            raise ValueError("this stream is not in the pool: it was closed or removed, or is of another pool")
