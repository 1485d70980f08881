"""Recordings, encoded by the steps that a stream takes: this defines the tokens of a latency."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spintok.data.audio import Recording
from spintok.featurizer import FeatureBatch
from spintok.frames import SAMPLE_RATE, num_samples
from spintok.streaming.engine import Engine, Result, Session
from spintok.streaming.state import Heard, from_bytes, to_bytes
from spintok.tokens import Tokens

__all__ = ["CodesPart", "features_by_steps", "parts_by_steps", "run_recordings", "tokens_by_steps"]


@dataclass(frozen=True)
class _Running:
    index: int
    blocks: Iterator[Tensor]
    session: Session

    def prepare(self) -> bool:
        """Read until a step is due; False if there is none left."""
        while not self.session.due and not self.session.ended:
            block = next(self.blocks, None)
            if block is None:
                self.session.ended = True
            else:
                self.session.add(block.numpy())
        return self.session.due > 0


def run_recordings(
    engine: Engine, recordings: Sequence[Recording], layers: Sequence[int] = ()
) -> Iterator[tuple[int, Session, list[Result]]]:
    """Encode recordings step by step, as many at once as the engine has slots.

    Yields:
        The index of a recording, its session, and the results of its next steps in order; the last time an empty list.
    """
    waiting = iter(enumerate(recordings))
    running: list[_Running] = []
    while True:
        while len(running) < engine.slots and (entry := next(waiting, None)) is not None:
            running.append(_Running(entry[0], entry[1].blocks(), Session(engine)))
        if not running:
            return
        due: list[_Running] = []
        done: list[_Running] = []
        for one in running:
            (due if one.prepare() else done).append(one)
        for one in done:
            yield one.index, one.session, []
        running = due
        if due:
            for one, result in zip(due, engine.step([one.session for one in due], layers), strict=True):
                yield one.index, one.session, [result]


def tokens_by_steps(
    engine: Engine, recordings: Sequence[Recording], progress: Callable[[int, int], None]
) -> Iterator[tuple[int, dict[str, Tokens]]]:
    """As ``Tokenizer.iter_recordings``, with all codebooks of the engine."""
    empty = np.zeros(0, dtype=np.int32)
    parts: list[list[list[NDArray[np.int32]]]] = [[[empty] for _ in engine.codebooks] for _ in recordings]
    configs = [codebook.config for codebook in engine.codebooks]
    for index, session, results in run_recordings(engine, recordings):
        for result in results:
            for part, codes in zip(parts[index], result.codes, strict=True):
                part.append(codes)
        encoded = min(session.samples, num_samples(session.frames, engine.grid))
        progress(index, encoded if results else session.samples)
        if not results:
            yield (
                index,
                {
                    config.name: Tokens(np.concatenate(part), config.size, session.samples, engine.grid)
                    for config, part in zip(configs, parts[index], strict=True)
                },
            )


def features_by_steps(engine: Engine, recordings: Sequence[Recording], layers: Sequence[int]) -> Iterator[FeatureBatch]:
    """As ``Featurizer.iter_features``."""
    empty = torch.zeros(0, engine.featurizer.encoder.num_features, device=engine.device)
    for index, session, results in run_recordings(engine, recordings, layers):
        found = [[result.features[i] for result in results] or [empty] for i in range(len(layers))]
        yield FeatureBatch([index], found, [session.samples])


class CodesPart(NamedTuple):
    """The next stretch of a long recording.

    Attributes:
        codes: (T,) int32 of each codebook by name; T may be 0.
        samples: the number of samples at 16 kHz read so far.
        state: makes the bytes with which ``Tokenizer.iter_codes`` goes on behind this part, in another process too.
    """

    codes: dict[str, Tensor]
    samples: int
    state: Callable[[], bytes]


def parts_by_steps(engine: Engine, recording: Recording, state: bytes | None = None) -> Iterator[CodesPart]:
    """The codes of ``tokens_by_steps`` for one long recording, a second after the other, or from a ``state`` on.

    Raises ``ValueError`` when the state is damaged or of another tokenizer, latency or codebook.
    """
    heard = Heard(engine) if state is None else from_bytes(engine, state)
    session = heard.session
    names = [codebook.config.name for codebook in engine.codebooks]

    def part() -> CodesPart:
        codes: list[list[NDArray[np.int32]]] = [[np.zeros(0, dtype=np.int32)] for _ in engine.codebooks]
        while session.due:
            (result,) = engine.step([session])
            for found, own in zip(codes, result.codes, strict=True):
                found.append(own)
        whole = {name: torch.from_numpy(np.concatenate(found)) for name, found in zip(names, codes, strict=True)}
        return CodesPart(whole, session.samples, partial(to_bytes, heard))

    past = session.samples
    for block in recording.blocks():
        samples = block[past:].numpy()
        past -= min(past, len(block))
        # All of a block at once could take a minute.
        for start in range(0, len(samples), SAMPLE_RATE):
            session.add(samples[start : start + SAMPLE_RATE])
            yield part()
    session.ended = True
    yield part()
