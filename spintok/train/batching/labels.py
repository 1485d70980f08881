"""The label of every frame: a tokenizer's code, computed once and stored, or the phone of an alignment."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spintok._files import digest
from spintok.corpus.tokens import Options, encode_corpus, read_corpus
from spintok.data.labels.alignments import Alignment, frame_intervals
from spintok.data.manifest import Utterance
from spintok.frames import num_frames
from spintok.progress import Progress
from spintok.tokenizer import Tokenizer
from spintok.train.batching.array_file import ArrayFile
from spintok.train.batching.examples import Crop
from spintok.train.distributed import Distributed

__all__ = ["Labels", "code_labels", "phone_labels"]


@dataclass(frozen=True)
class Labels:
    """The frame labels of a corpus.

    Attributes:
        codes: for each utterance by its row, an array (T,) of labels, or (T, L) of L kinds of labels; -1 where a frame
            has none.
        size: K, the number of different labels, or the largest of those.
        utterances: named in error messages.
    """

    codes: ArrayFile | Sequence[NDArray[np.generic]]
    size: int
    utterances: Sequence[Utterance]

    def of(self, row: int, crop: Crop) -> Tensor:
        """The labels (T,) or (T, L) int64 of a crop of utterance ``row``.

        Raises:
            ValueError: the length of the file has changed since it was labelled.
        """
        codes = self.codes[row][crop.first_frame : crop.first_frame + crop.frames]
        if len(codes) != crop.frames:
            where = self.utterances[row].path
            raise ValueError(f"{where}: {len(codes)} labels for {crop.frames} frames: has the file changed?")
        return torch.from_numpy(codes.astype(np.int64))


def code_labels(
    tokenizer: Tokenizer,
    utterances: Sequence[Utterance],
    folder: Path,
    distributed: Distributed,
    progress: Progress,
    codebooks: Sequence[str] = (),
) -> Labels:
    """The codes of a tokenizer, encoded into ``folder`` by all processes together, or read back from there.

    Without ``codebooks`` they are (T,), those of the primary codebook; with L names of codebooks, (T, L).

    Raises:
        ValueError: a file cannot be encoded; the message names the first.
    """
    names = tuple(codebooks) or tokenizer.codebook_names[:1]
    size = max(tokenizer.codebooks[name].config.size for name in names)
    listed = digest([*((u.key, str(u.path)) for u in utterances), *((name,) for name in codebooks)])
    name = f"labels-{tokenizer.fingerprint[:12]}-{listed[:12]}"
    shards, path = folder / name, folder / f"{name}.codes"
    if not ArrayFile.exists(path):
        options = Options(
            codebooks=tuple(names),
            shard_size=100,
            rank=distributed.rank,
            ranks=distributed.world_size,
        )

        def advance(task: str, done: float, total: float, note: str = "") -> None:
            progress(f"labels from {tokenizer.name}", done, total, note)

        summary = encode_corpus(tokenizer, utterances, shards, options, advance)
        if summary.failures:
            first = summary.failures[0]
            raise ValueError(f"{len(summary.failures)} files cannot be labelled, the first: {first.error}")
        distributed.barrier()
        if distributed.rank == 0:
            _merge_shards(shards, path, size, names if codebooks else None)
    # Here, not above: a run that was killed before it had removed them all left some.
    if distributed.rank == 0 and shards.exists():
        shutil.rmtree(shards)
    distributed.barrier()
    return Labels(ArrayFile(path), size, utterances)


def phone_labels(
    alignments: Mapping[str, Alignment], utterances: Sequence[Utterance], samples: NDArray[np.int64]
) -> tuple[Labels, tuple[str, ...]]:
    """Phones as labels, and their names in the order of the label numbers, which is alphabetical.

    Args:
        alignments: by utterance key; the frames of an utterance without an alignment have no label.
        utterances: the corpus.
        samples: (N,) length of each utterance.
    """
    names = sorted({interval.label for alignment in alignments.values() for interval in alignment.phones})
    number = {name: i for i, name in enumerate(names)}
    codes: list[NDArray[np.generic]] = []
    for utterance, length in zip(utterances, samples.tolist(), strict=True):
        phones = alignments[utterance.key].phones if utterance.key in alignments else ()
        # The last entry is for frames outside all intervals, whose interval number is -1.
        of_interval = np.array([*(number[interval.label] for interval in phones), -1], dtype=np.int16)
        codes.append(of_interval[frame_intervals(phones, num_frames(length))])
    return Labels(codes, len(names), utterances), tuple(names)


def _merge_shards(shards: Path, path: Path, size: int, columns: Sequence[str] | None) -> None:
    """Write the codes (T,) of the only codebook of the shards, or those of the codebooks ``columns`` as (T, L)."""
    dtype = np.uint16 if size <= 1 << 16 else np.int32

    def codes_after(count: int) -> Iterator[list[NDArray[np.generic]]]:
        for record in islice(read_corpus(shards)[1], count, None):
            found = record.tokens
            if columns is None:
                codes = next(iter(found.values())).codes
            else:
                codes = np.stack([found[name].codes for name in columns], 1)
            yield [codes.astype(dtype)]

    ArrayFile.write(path, codes_after)
