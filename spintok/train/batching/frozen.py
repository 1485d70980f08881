"""Features of the frozen layers, computed once for views that are drawn once."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from spintok.frames import SAMPLE_RATE
from spintok.progress import Progress
from spintok.train.batching.array_file import ArrayFile
from spintok.train.batching.examples import Batch, pad
from spintok.train.batching.plan import BatchSpec
from spintok.train.batching.views import ViewExamples
from spintok.train.distributed import Distributed
from spintok.train.trainable import TrainableEncoder

__all__ = ["FrozenExamples"]


class FrozenExamples:
    """Batches with the frozen layers' features of two views, read from disk.

    In epoch ``e`` an utterance is its variant ``e % variants``. Each variant is an array (T, 2, D) of the first and the
    second view, in float32, so that training gives the same result as without the file. A variant takes 400 D bytes
    per second of audio.
    """

    def __init__(self, parts: list[ArrayFile], samples: NDArray[np.int64], variants: int) -> None:
        """Args: ``parts`` one file per process that computed features, ``samples`` (N,) the utterances' lengths."""
        self._parts = parts
        self._samples = samples
        self._variants = variants

    def __call__(self, spec: BatchSpec) -> Batch:
        variant = spec.position.epoch % self._variants
        arrays = [self._array(row, variant) for row in spec.rows]
        first, lengths = pad([torch.from_numpy(array[:, 0]) for array in arrays])
        second, _ = pad([torch.from_numpy(array[:, 1]) for array in arrays])
        seconds = sum(int(self._samples[row]) for row in spec.rows) / SAMPLE_RATE
        return Batch(spec.position, seconds, first, lengths, second=second)

    def _array(self, row: int, variant: int) -> NDArray[np.generic]:
        part, number = row % len(self._parts), row // len(self._parts)
        return self._parts[part][number * self._variants + variant]

    @classmethod
    def build(
        cls,
        examples: ViewExamples,
        encoder: TrainableEncoder,
        samples: NDArray[np.int64],
        folder: Path,
        distributed: Distributed,
        progress: Progress,
    ) -> "FrozenExamples":
        """Compute the features of every utterance with ``samples`` (N,) above 0, or find them in ``folder``, or some.

        Each utterance is encoded alone, so its features do not depend on a batch.
        """
        variants, size = examples.views.variants, distributed.world_size
        name = _digest(examples, encoder, samples)
        paths = [folder / f"frozen-{name}-{rank}-of-{size}.f32" for rank in range(size)]
        rows = range(distributed.rank, len(samples), size)
        width = encoder.encoder.num_features

        def features_after(count: int) -> Iterator[list[NDArray[np.generic]]]:
            for number in range(count, len(rows) * variants):
                done, variant = divmod(number, variants)
                row = rows[done]
                if samples[row] == 0:
                    yield [np.zeros((0, 2, width), dtype=np.float32)]
                else:
                    _, first, lengths, second = examples.pair([row], variant)
                    both = [
                        encoder.frozen_features(view.to(distributed.device), lengths)[0][0] for view in (first, second)
                    ]
                    yield [torch.stack(both, dim=1).float().cpu().numpy()]
                if variant == variants - 1:
                    progress("frozen layers", done + 1, len(rows))

        ArrayFile.write(paths[distributed.rank], features_after)
        distributed.barrier()
        return cls([ArrayFile(path) for path in paths], samples, variants)


def _digest(examples: ViewExamples, encoder: TrainableEncoder, samples: NDArray[np.int64]) -> str:
    """Twelve hexadecimal digits of a hash of everything that the features depend on."""
    recordings = examples.recordings
    listed = [
        asdict(examples.views),
        examples.seed,
        recordings.max_samples,
        [f"{u.key}\t{u.path}" for u in recordings.utterances],
        [str(u.path) for u in examples.noise],
        encoder.frozen,
    ]
    digest = hashlib.sha256(json.dumps(listed).encode())
    digest.update(samples.tobytes())
    for weight in encoder.encoder.state_dict().values():
        digest.update(weight.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
