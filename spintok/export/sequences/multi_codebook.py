"""Several codebooks in one sequence: flattened frame by frame, or with a delay for each codebook."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spintok.export.errors import ExportError
from spintok.export.sequences.base import Part, TokenSequence, join, marker
from spintok.export.vocabulary import Vocabulary
from spintok.tokens import Tokens

__all__ = ["Pattern", "all_codebooks", "delay", "read_codebooks", "undelay"]

Pattern = Literal["flat", "delayed"]
Ids = NDArray[np.int32]


def delay(ids: Ids, fill: int) -> Ids:
    """Shift codebook ``c`` right by ``c`` steps, the delay pattern of MusicGen (Copet et al. 2023, arXiv 2306.05284).

    With it, a model that predicts all codebooks of a step at once sees the earlier codebooks of a frame.

    Args:
        ids: (C, T).
        fill: the id where a codebook has no frame.

    Returns:
        (C, T + C - 1) int32.
    """
    count, frames = ids.shape
    found = np.full((count, frames + count - 1), fill, dtype=np.int32)
    for number in range(count):
        found[number, number : number + frames] = ids[number]
    return found


def undelay(delayed: Ids) -> Ids:
    """The inverse of ``delay``: (C, T) from (C, T + C - 1). Raises ``ExportError`` if there are too few steps."""
    count, steps = delayed.shape
    frames = steps - count + 1
    if frames < 0:
        raise ExportError(f"{steps} steps are too few for {count} delayed codebooks")
    return np.stack([delayed[number, number : number + frames] for number in range(count)])


def all_codebooks(tokens: Mapping[str, Tokens], vocabulary: Vocabulary, pattern: Pattern = "flat") -> TokenSequence:
    """``[SOS]``, for each step the ids of all codebooks of the vocabulary, ``[EOS]``; one code per frame.

    Args:
        tokens: the tokens of each codebook by its name, all with the same number of frames.
        vocabulary: the vocabulary of the extended tokenizer.
        pattern: "flat": a step is a frame. "delayed": a step is a column of ``delay``.

    Raises:
        ExportError: a codebook is missing, empty, or of another length.
    """
    matrix = _matrix(tokens, vocabulary)
    if pattern == "delayed":
        matrix = delay(matrix, vocabulary.special("delay"))
    body = np.ascontiguousarray(matrix.T).ravel()
    begin, end = marker("begin_speech", vocabulary, False), marker("end_speech", vocabulary)
    return join([begin, Part(body, True, lambda: vocabulary.spell(body)), end])


def read_codebooks(ids: Ids, vocabulary: Vocabulary, pattern: Pattern = "flat") -> dict[str, Tokens]:
    """The tokens of a sequence of ``all_codebooks``, by codebook name. Raises ``ExportError`` for another sequence."""
    body, count = np.asarray(ids)[1:-1], len(vocabulary.codebooks)
    if body.size % count:
        raise ExportError(f"{body.size} ids do not make whole steps of {count} codebooks")
    matrix = body.reshape(-1, count).T
    if pattern == "delayed":
        matrix = undelay(matrix)
    return {
        name: Tokens(vocabulary.codes(row, name), size)
        for row, (name, size) in zip(matrix, vocabulary.codebooks.items(), strict=True)
    }


def _matrix(tokens: Mapping[str, Tokens], vocabulary: Vocabulary) -> Ids:
    missing = [name for name in vocabulary.codebooks if name not in tokens]
    if missing:
        raise ExportError(f"no tokens of the codebook {missing[0]!r}; encode with --codebook all")
    lengths = {tokens[name].num_frames for name in vocabulary.codebooks}
    if len(lengths) > 1:
        raise ExportError(f"the codebooks of an utterance must have the same number of frames, got {sorted(lengths)}")
    if lengths == {0}:
        raise ExportError("an utterance without tokens cannot be part of a sequence")
    return np.stack([vocabulary.ids(tokens[name].codes, name) for name in vocabulary.codebooks])
