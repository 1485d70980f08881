"""The label of every frame: the codes of a tokenizer, computed once and kept on disk."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from spintok.corpus import Options, encode_corpus, read_corpus
from spintok.manifest import Utterance
from spintok.tokenizer import Tokenizer
from spintok.train.examples import Crop
from spintok.train.packed import Packed
from spintok.train.ranks import Ranks

__all__ = ["Labels", "label"]


@dataclass(frozen=True)
class Labels:
    """The labels of a corpus.

    Attributes:
        codes: of each utterance by its number, one a frame.
        size: K, how many labels there are.
        utterances: for error messages.
    """

    codes: Packed
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
    listed = hashlib.sha256("\n".join(f"{u.key}\t{u.path}" for u in utterances).encode()).hexdigest()
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


def _pack(shards: Path, packed: Path, size: int) -> None:
    dtype = np.uint16 if size <= 1 << 16 else np.int32

    codes = (next(iter(record.tokens.values())).codes.astype(dtype) for record in read_corpus(shards)[1])
    Packed.write(packed, codes)
