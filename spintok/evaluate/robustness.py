"""How much tokens change when speech does, without labels: the unit edit distance.

UED = 100 x Levenshtein(u, v) / len(u), with u the de-duplicated codes of the speech as it is and v those of the
changed speech: Gat et al. 2023, "Augmentation Invariant Discrete Representation for Generative Spoken Language
Modeling". Two ways to put utterances together are in use, and both are given: ``ued_mean``, the mean over
utterances, and ``ued_pooled``, all edits over all tokens. They can pass 100.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from spintok.data.audio import read
from spintok.data.manifest import Utterance
from spintok.evaluate.bootstrap import Ratios
from spintok.evaluate.perturbations import Condition, Material, apply
from spintok.frames import SAMPLE_RATE
from spintok.tokenizer import Tokenizer

__all__ = ["edit_distance", "robustness", "ued"]


def edit_distance(first: ArrayLike, second: ArrayLike) -> int:
    """The fewest insertions, deletions and substitutions between two sequences of integers (Levenshtein).

    Raises ``ValueError`` without rapidfuzz.
    """
    try:
        from rapidfuzz.distance import Levenshtein
    except (ImportError, OSError, RuntimeError) as error:
        raise ValueError(f"edit distances need rapidfuzz ({error}): pip install 'spintok[evaluate]'") from None
    return int(Levenshtein.distance(np.asarray(first).tolist(), np.asarray(second).tolist()))


def ued(clean: Sequence[ArrayLike], changed: Sequence[ArrayLike], keys: Sequence[str], name: str = "") -> Ratios:
    """``ued_mean`` and ``ued_pooled`` of de-duplicated sequences, pair by pair; ``name`` is put after them.

    An utterance without clean tokens has no distance and is left out of both.
    """
    edits, lengths = [], []
    for before, after in zip(clean, changed, strict=True):
        lengths.append(len(np.asarray(before)))
        edits.append(edit_distance(before, after) if lengths[-1] else 0)
    distance, length = np.array(edits, dtype=np.float64), np.array(lengths, dtype=np.float64)
    suffix = f"_{name}" if name else ""
    return Ratios(
        tuple(keys),
        {
            f"ued_mean{suffix}": (100 * distance / np.maximum(length, 1), (length > 0).astype(np.float64)),
            f"ued_pooled{suffix}": (100 * distance, length),
        },
    )


def robustness(
    tokenizer: Tokenizer,
    utterances: Sequence[Utterance],
    conditions: Sequence[Condition],
    material: Material,
    *,
    codebook: str | None = None,
    seed: int = 0,
    progress: Callable[[int], None] = lambda utterances: None,
) -> Ratios:
    """UED under each condition, from the primary codebook unless another is named.

    The same utterance, condition and seed always give the same sound.
    """
    name = codebook or tokenizer.codebook_names[0]
    found: list[list[np.ndarray]] = [[] for _ in range(len(conditions) + 1)]
    for utterance in utterances:
        waveform = read(utterance.path)
        changed = [apply(condition, waveform, utterance, material, seed) for condition in conditions]
        tokens = tokenizer.encode([waveform, *changed], SAMPLE_RATE, codebook=name)
        for sequences, one in zip(found, tokens, strict=True):
            sequences.append(one.units)
        progress(1)
    keys = tuple(utterance.key for utterance in utterances)
    parts = [
        ued(found[0], sequences, keys, condition.name).parts
        for condition, sequences in zip(conditions, found[1:], strict=True)
    ]
    return Ratios(keys, {figure: part for one in parts for figure, part in one.items()})
