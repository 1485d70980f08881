"""The label of every frame: the code that a tokenizer gives it, computed once and kept on disk, or the phone said."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

from spintok._files import digest
from spintok.corpus.tokens import Options, encode_corpus, read_corpus
from spintok.data.alignments import Alignment, frame_intervals
from spintok.data.manifest import Utterance
from spintok.frames import num_frames
from spintok.tokenizer import Tokenizer
from spintok.train.batching.array_file import Packed
from spintok.train.batching.examples import Crop
from spintok.train.distributed import Ranks

__all__ = ["Labels", "aligned", "label"]


@dataclass(frozen=True)
class Labels:
    """The labels of a corpus.

    Attributes:
        codes: of each utterance by its number, one a frame; -1 where a frame has no label.
        size: K, how many labels there are.
        utterances: for error messages.
    """

    codes: Packed | Sequence[NDArray[np.generic]]
    size: int
    utterances: Sequence[Utterance]

    def of(self, row: int, crop: Crop) -> Tensor:
        """The labels (T,) int64 of a stretch of utterance ``row``.

        Raises ``ValueError`` when the file's length has changed since it was labelled.
        """
        codes = self.codes[row][crop.first_frame : crop.first_frame + crop.frames]
        if len(codes) != crop.frames:
            where = self.utterances[row].path
            raise ValueError(f"{where}: {len(codes)} labels for {crop.frames} frames: has the file changed?")
        return torch.from_numpy(codes.astype(np.int64))


def label(
    tokenizer: Tokenizer, utterances: Sequence[Utterance], folder: Path, ranks: Ranks, progress: Progress
) -> Labels:
    """Encode the corpus with the primary codebook into ``folder``, sharing the work among the ranks, or find it there.

    Raises:
        ValueError: a file cannot be encoded; it names the first.
    """
    size = tokenizer.codebook_size
    listed = digest((u.key, str(u.path)) for u in utterances)
    name = f"labels-{tokenizer.fingerprint[:12]}-{listed[:12]}"
    packed = folder / f"{name}.codes"
    if not Packed.exists(packed):
        bar = progress.add_task(f"labels: codes of {tokenizer.name}", total=len(utterances) // ranks.size)
        options = Options(codebooks=(tokenizer.codebook_names[0],), shard_size=100, rank=ranks.rank, ranks=ranks.size)
        shards = folder / name
        summary = encode_corpus(tokenizer, utterances, shards, options, lambda done, _: progress.advance(bar, done))
        if summary.failures:
            first = summary.failures[0]
            raise ValueError(f"{len(summary.failures)} files cannot be labelled, the first: {first.error}")
        ranks.wait()
        if ranks.rank == 0:
            _pack(shards, packed, size)
            shutil.rmtree(shards)
        ranks.wait()
    return Labels(Packed(packed), size, utterances)


def aligned(
    alignments: Mapping[str, Alignment], utterances: Sequence[Utterance], samples: NDArray[np.int64]
) -> tuple[Labels, tuple[str, ...]]:
    """The phones of utterances by their key, and the phones' names, sorted: the labels are places among these.

    ``samples`` (N,) are the lengths of the utterances. One without an alignment has no labels at all.
    """
    names = sorted({interval.label for alignment in alignments.values() for interval in alignment.phones})
    number = {name: i for i, name in enumerate(names)}
    codes: list[NDArray[np.generic]] = []
    for utterance, length in zip(utterances, samples.tolist(), strict=True):
        phones = alignments[utterance.key].phones if utterance.key in alignments else ()
        # The last entry is for frames without a label, whose index is -1.
        of_interval = np.array([*(number[interval.label] for interval in phones), -1], dtype=np.int16)
        codes.append(of_interval[frame_intervals(phones, num_frames(length))])
    return Labels(codes, len(names), utterances), tuple(names)


def _pack(shards: Path, packed: Path, size: int) -> None:
    dtype = np.uint16 if size <= 1 << 16 else np.int32

    codes = (next(iter(record.tokens.values())).codes.astype(dtype) for record in read_corpus(shards)[1])
    Packed.write(packed, codes)
