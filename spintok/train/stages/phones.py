"""Phones of alignments as labels, named in a recipe by a file or folder."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spintok.data.labels.alignment_files import read_alignments
from spintok.data.labels.alignments import match
from spintok.train.batching.labels import Labels, phone_labels
from spintok.train.recipe import RecipeError
from spintok.train.stages.base import Corpus

__all__ = ["is_alignments", "read_phones"]

_SUFFIXES = {".textgrid", ".ctm", ".tsv", ".jsonl", ".json"}


def is_alignments(source: str) -> bool:
    """Whether ``source`` is a file with the suffix of alignments, or a folder that is not a tokenizer."""
    path = Path(source)
    if path.is_dir():
        return not (path / "config.json").exists()
    return path.suffix.lower() in _SUFFIXES


def read_phones(field: str, source: str, corpus: Corpus) -> tuple[Labels, NDArray[np.bool_], tuple[str, ...]]:
    """The labels, which utterances (N,) have any, and notes for the user. Raises ``RecipeError``, naming ``field``."""
    keys = [utterance.key for utterance in corpus.utterances]
    try:
        alignments = match(keys, read_alignments(Path(source)))
    except ValueError as error:
        raise RecipeError(f"{field}: {error}") from None
    labels, names = phone_labels(alignments, corpus.utterances, corpus.samples)
    aligned = np.array([key in alignments for key in keys])
    notes = [f"the labels are {len(names)} phones: {' '.join(names)}"]
    if skipped := int((~aligned).sum()):
        notes.append(f"{skipped} of {len(aligned)} utterances have no alignment and give no phones")
    return labels, aligned, tuple(notes)
