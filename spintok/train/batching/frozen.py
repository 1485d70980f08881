"""Features of the frozen part of an encoder, computed once for views that are drawn once."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from spintok.frames import SAMPLE_RATE
from spintok.train.batching.array_file import Packed
from spintok.train.batching.examples import Batch, pad
from spintok.train.batching.plan import Planned
from spintok.train.batching.views import SpinExamples
from spintok.train.distributed import Ranks
from spintok.train.stages.trainable import TrainableEncoder

__all__ = ["FrozenExamples"]


class FrozenExamples:
    """Batches of two views' frozen features, read from disk.

    Utterance ``row`` in epoch ``e`` is its variant ``e % variants``; each variant is one array (T, 2, D), the first
    and the second view. Float32, so that training is what it would be without the file: 400 D bytes a second of
    audio and variant.
    """

    def __init__(self, parts: list[Packed], rows: NDArray[np.int64], variants: int) -> None:
        self._parts = parts
        self._rows = rows
        self._variants = variants

    def __call__(self, planned: Planned) -> Batch:
        variant = planned.place.epoch % self._variants
        arrays = [self._array(row, variant) for row in planned.rows]
        first, lengths = pad([torch.from_numpy(array[:, 0]) for array in arrays])
        second, _ = pad([torch.from_numpy(array[:, 1]) for array in arrays])
        seconds = sum(int(self._rows[row]) for row in planned.rows) / SAMPLE_RATE
        return Batch(planned.place, seconds, first, lengths, second=second)

    def _array(self, row: int, variant: int) -> NDArray[np.generic]:
        part, place = row % len(self._parts), row // len(self._parts)
        return self._parts[part][place * self._variants + variant]

    @classmethod
    def build(
        cls,
        examples: SpinExamples,
        encoder: TrainableEncoder,
        samples: NDArray[np.int64],
        folder: Path,
        ranks: Ranks,
        progress: Progress,
    ) -> "FrozenExamples":
        """Compute the features of every utterance with ``samples`` (N,) above 0, or find them in ``folder``.

        Each utterance goes through the encoder alone, so its features do not depend on any batch.
        """
        variants = examples.views.variants
        name = _name(examples, encoder, samples)
        paths = [folder / f"frozen-{name}-{rank}-of-{ranks.size}.f32" for rank in range(ranks.size)]
        mine = range(ranks.rank, len(samples), ranks.size)
        if not Packed.exists(paths[ranks.rank]):
            bar = progress.add_task("frozen layers", total=len(mine) * variants)
            width = encoder.encoder.num_features

            def features() -> Iterator[NDArray[np.generic]]:
                for row in mine:
                    for variant in range(variants):
                        progress.advance(bar)
                        if samples[row] == 0:
                            yield np.zeros((0, 2, width), dtype=np.float32)
                            continue
                        _, first, lengths, second = examples.pair([row], variant)
                        both = [encoder.lower(view.to(ranks.device), lengths)[0][0] for view in (first, second)]
                        yield torch.stack(both, dim=1).float().cpu().numpy()

            Packed.write(paths[ranks.rank], features())
        ranks.wait()
        return cls([Packed(path) for path in paths], samples, variants)


def _name(examples: SpinExamples, encoder: TrainableEncoder, samples: NDArray[np.int64]) -> str:
    """What the features depend on, in twelve digits."""
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
