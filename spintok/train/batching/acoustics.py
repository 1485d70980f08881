"""Codes and acoustic parameters of a corpus, and batches of both for training a decoder."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spintok._files import digest
from spintok.augment import utterance_rng
from spintok.data.audio import read
from spintok.data.manifest import Utterance
from spintok.decoder.acoustics import PARAMETERS
from spintok.frames import FrameGrid, num_frames
from spintok.progress import Progress
from spintok.train.batching.array_file import ArrayFile
from spintok.train.batching.examples import Batch, pad
from spintok.train.batching.labels import Labels
from spintok.train.batching.plan import BatchSpec
from spintok.train.distributed import Distributed
from spintok.train.world import analyze

__all__ = ["AcousticExamples", "Acoustics", "analyze_corpus"]


@dataclass(frozen=True)
class Acoustics:
    """What a decoder learns from.

    Attributes:
        labels: the codes of each utterance, (T, 1).
        analysis: the acoustic parameters of each utterance, (steps * T, PARAMETERS) float32.
        voices: (N,) number of the voice of each utterance.
        steps: vectors of parameters for each frame.
    """

    labels: Labels
    analysis: ArrayFile
    voices: NDArray[np.int64]
    steps: int

    def of(self, row: int) -> tuple[Tensor, Tensor]:
        """Codes (T,) int64 and parameters (steps * T, PARAMETERS) of an utterance.

        Raises:
            ValueError: they do not belong together.
        """
        codes, parameters = self.labels.codes[row][:, 0], self.analysis[row]
        if len(parameters) != self.steps * len(codes):
            where = self.labels.utterances[row].path
            raise ValueError(f"{where}: {len(codes)} codes, {len(parameters)} vectors: has the file changed?")
        return torch.from_numpy(codes.astype(np.int64)), torch.from_numpy(parameters)

    def statistics(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (PARAMETERS,) over the vectors of utterances."""
        count, total, squares = 0, np.zeros(PARAMETERS), np.zeros(PARAMETERS)
        for row in rows:
            values = self.analysis[row].astype(np.float64)
            count, total, squares = count + len(values), total + values.sum(0), squares + (values**2).sum(0)
        mean = total / max(count, 1)
        scale = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 1e-6))
        return torch.from_numpy(mean).float(), torch.from_numpy(scale).float()


@dataclass(frozen=True)
class AcousticExamples:
    """Batches of codes and parameters. Longer utterances are cropped at random, differently in each epoch.

    Attributes:
        acoustics: the acoustic parameters of the corpus.
        max_frames: the longest crop, in frames.
        seed: seeds the draws.
    """

    acoustics: Acoustics
    max_frames: int
    seed: int

    def __call__(self, spec: BatchSpec) -> Batch:
        codes, parameters = [], []
        steps, utterances = self.acoustics.steps, self.acoustics.labels.utterances
        for row in spec.rows:
            rng = utterance_rng(self.seed, spec.position.epoch, utterances[row].key)
            of_row, vectors = self.acoustics.of(row)
            first = int(rng.integers(max(1, len(of_row) - self.max_frames + 1)))
            codes.append(of_row[first : first + self.max_frames])
            parameters.append(vectors[steps * first : steps * (first + self.max_frames)])
        labels, lengths = pad(codes, -1)
        seconds = int(lengths.sum()) * steps / 200
        voices = torch.from_numpy(self.acoustics.voices[list(spec.rows)])
        return Batch(spec.position, seconds, pad(parameters)[0], lengths, labels=labels, voices=voices)


def analyze_corpus(
    utterances: Sequence[Utterance],
    grid: FrameGrid,
    steps: int,
    folder: Path,
    distributed: Distributed,
    progress: Progress,
) -> ArrayFile:
    """The acoustic parameters of utterances, computed into ``folder`` by the first process, or read back from there.

    Raises:
        ValueError: a file cannot be read.
        MissingPackageError: pyworld is not installed.
    """
    listed = digest([*((u.key, str(u.path)) for u in utterances), (str(grid), str(steps))])
    path = folder / f"analysis-{listed[:12]}.parameters"
    if distributed.rank == 0 and not ArrayFile.exists(path):
        folder.mkdir(parents=True, exist_ok=True)

        def analyses_after(done: int) -> Iterator[Iterable[NDArray[np.generic]]]:
            for number, utterance in enumerate(utterances[done:], start=done):
                progress("analysis", number, len(utterances))
                waveform = read(utterance.path)
                yield [analyze(waveform, steps * num_frames(len(waveform), grid))]
            progress("analysis", len(utterances), len(utterances))

        ArrayFile.write(path, analyses_after)
    distributed.barrier()
    return ArrayFile(path)
