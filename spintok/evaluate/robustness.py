"""Unit edit distance (UED): how much the tokens change when the speech is perturbed. It needs no labels.

UED = 100 x Levenshtein(u, v) / len(u), where u are the de-duplicated codes of the original speech and v those of the
perturbed speech: Gat et al. 2023, "Augmentation Invariant Discrete Representation for Generative Spoken Language
Modeling". Two averages are in use, and both are computed: ``ued_mean`` is the mean over utterances, ``ued_pooled`` all
edits over all tokens. Either can exceed 100.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from spintok.data.audio import read
from spintok.data.manifest import Utterance
from spintok.evaluate.bootstrap import Ratios
from spintok.evaluate.metric import Metric, MetricInputs, Result, bootstrapped
from spintok.evaluate.perturbations import MEANINGS, Condition, NoiseSources, apply
from spintok.frames import SAMPLE_RATE
from spintok.progress import Progress, no_progress
from spintok.tokenizer import Tokenizer

__all__ = ["METRIC", "edit_distance", "robustness", "ued"]


def edit_distance(first: ArrayLike, second: ArrayLike) -> int:
    """The Levenshtein distance of two sequences of integers.

    Raises ``ValueError`` without rapidfuzz.
    """
    try:
        from rapidfuzz.distance import Levenshtein
    except (ImportError, OSError, RuntimeError) as error:
        raise ValueError(f"edit distances need rapidfuzz ({error}): pip install 'spintok[evaluate]'") from None
    return int(Levenshtein.distance(np.asarray(first).tolist(), np.asarray(second).tolist()))


def ued(clean: Sequence[ArrayLike], changed: Sequence[ArrayLike], keys: Sequence[str], name: str = "") -> Ratios:
    """``ued_mean`` and ``ued_pooled`` of pairs of de-duplicated sequences, with the suffix ``name``.

    An utterance without clean tokens has no distance; both averages leave it out.
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
    noise_sources: NoiseSources,
    *,
    codebook: str | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Ratios:
    """UED under each condition, with the primary codebook unless another one is named.

    The same utterance, condition and seed always give the same perturbed speech.
    """
    name = codebook or tokenizer.codebook_names[0]
    found: list[list[np.ndarray]] = [[] for _ in range(len(conditions) + 1)]
    for done, utterance in enumerate(utterances, start=1):
        waveform = read(utterance.path)
        changed = [apply(condition, waveform, utterance, noise_sources, seed) for condition in conditions]
        tokens = tokenizer.encode([waveform, *changed], SAMPLE_RATE, codebook=name)
        for sequences, one in zip(found, tokens, strict=True):
            sequences.append(one.units)
        progress(f"perturbed speech through {tokenizer.name}", done, len(utterances))
    keys = tuple(utterance.key for utterance in utterances)
    parts = [
        ued(found[0], sequences, keys, condition.name).parts
        for condition, sequences in zip(conditions, found[1:], strict=True)
    ]
    return Ratios(keys, {metric: part for one in parts for metric, part in one.items()})


def _measure(inputs: MetricInputs) -> Result:
    options, sources = inputs.options, inputs.dataset.noise_sources
    missing = {c.name: why for c in options.conditions if (why := sources.missing(c.kind)) is not None}
    conditions = [condition for condition in options.conditions if condition.name not in missing]
    if not conditions:
        raise ValueError(next(iter(missing.values()), "no conditions are given"))
    ratios = robustness(
        inputs.tokenizer,
        _sample(inputs.dataset.utterances, options.robustness_utterances, options.seed),
        conditions,
        sources,
        codebook=options.codebook,
        seed=options.seed,
        progress=inputs.progress,
    )
    strengths = {c.name: {"kind": c.kind, "strength": c.strength, "unit": MEANINGS[c.kind]} for c in conditions}
    return bootstrapped(ratios, options, details={"conditions": strengths, "left_out": missing})


def _sample(utterances: Sequence[Utterance], number: int, seed: int) -> list[Utterance]:
    """At most ``number`` utterances, chosen at random, in their order."""
    if len(utterances) <= number:
        return list(utterances)
    chosen = np.random.default_rng(seed).permutation(len(utterances))[:number]
    return [utterances[i] for i in np.sort(chosen).tolist()]


METRIC = Metric("robustness", _measure, package=("rapidfuzz", "rapidfuzz"))
