"""Unit edit distance (UED): how much the tokens change when the speech is perturbed. It needs no labels.

UED = 100 x Levenshtein(u, v) / len(u), where u are the de-duplicated codes of the original speech and v those of the
perturbed speech: Gat et al. 2023, "Augmentation Invariant Discrete Representation for Generative Spoken Language
Modeling". Two averages are in use, and both are computed: ``ued_mean`` is the mean over utterances, ``ued_pooled`` all
edits over all tokens. Either can exceed 100.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spintok._files import require
from spintok.data.audio import AudioError, read
from spintok.data.labels.alignments import SILENCE_LABELS, Interval, intervals_at
from spintok.data.manifest import Utterance
from spintok.evaluate.bootstrap import Ratios
from spintok.evaluate.metric import Metric, MetricInputs, Result, bootstrapped
from spintok.evaluate.noise_sources import NoiseSources
from spintok.evaluate.perturbations import MEANINGS, Condition, Perturbed, apply
from spintok.frames import SAMPLE_RATE
from spintok.progress import Progress, no_progress
from spintok.tokenizer import Tokenizer
from spintok.tokens import Tokens, deduplicate

__all__ = ["METRIC", "edit_distance", "robustness", "ued"]


def edit_distance(first: ArrayLike, second: ArrayLike) -> int:
    """The Levenshtein distance of two sequences of integers or of texts.

    Raises ``ValueError`` without rapidfuzz.
    """
    levenshtein = require("rapidfuzz.distance", extra="evaluate", purpose="an edit distance").Levenshtein
    return int(levenshtein.distance(np.asarray(first).tolist(), np.asarray(second).tolist()))


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
    phones: Mapping[str, Sequence[Interval]] | None = None,
    codebook: str | None = None,
    seed: int = 0,
    skipped: MutableMapping[str, str] | None = None,
    progress: Progress = no_progress,
) -> Ratios:
    """UED and equal frames under each condition; the same utterance, condition and seed give the same perturbed speech.

    ``ued_mean_{condition}`` and ``ued_pooled_{condition}`` compare the frames that both recordings have: padding is not
    counted, and a piece is compared with the same piece of the whole. ``frames_equal_{condition}``: the share of these
    frames that keep their code, in per cent, for conditions that keep the time of the frames (all but tempo and shift).
    With ``phones``, ``ued_speech_mean_{condition}`` and ``ued_speech_pooled_{condition}`` are the same UED over the
    frames that are not labelled as silence: in silence a tokenizer may emit any number of tokens without harm.

    Args:
        tokenizer: the tokenizer.
        utterances: the speech; an utterance too short for a condition is left out of it.
        conditions: what to do to the speech.
        noise_sources: sounds for the conditions that need them.
        phones: phones by utterance key; utterances without any are left out of UED over speech.
        codebook: the codebook to use; the primary one by default.
        seed: seed of the perturbations.
        skipped: gets the keys of utterances whose audio cannot be read, with the reasons.
        progress: reports the progress.
    """
    name = codebook or tokenizer.codebook_names[0]
    keys: list[str] = []
    pairs: list[list[_Pair | None]] = [[] for _ in conditions]
    for done, utterance in enumerate(utterances, start=1):
        try:
            waveform = read(utterance.path)
        except AudioError as error:
            if skipped is not None:
                skipped[utterance.key] = str(error)
            continue
        perturbed = [
            apply(condition, waveform, utterance, noise_sources, seed, tokenizer.grid) for condition in conditions
        ]
        waveforms = [waveform, *(one.waveform for one in perturbed if one is not None)]
        original, *others = tokenizer.encode(waveforms, SAMPLE_RATE, codebook=name)
        intervals = None if phones is None else phones.get(utterance.key)
        waiting = iter(others)
        for found, one in zip(pairs, perturbed, strict=True):
            found.append(None if one is None else _Pair.of(one, original, next(waiting), intervals))
        keys.append(utterance.key)
        progress(f"perturbed speech through {tokenizer.name}", done, len(utterances))
    if not keys:
        raise ValueError("no utterance could be read")
    parts: dict[str, tuple[ArrayLike, ArrayLike]] = {}
    for condition, found in zip(conditions, pairs, strict=True):
        parts |= _parts(condition.name, found, with_speech=phones is not None)
    return Ratios(tuple(keys), parts)


@dataclass(frozen=True)
class _Pair:
    """Corresponding codes of an original and a perturbed utterance, and the same without silence."""

    original: NDArray[np.int32]
    perturbed: NDArray[np.int32]
    original_speech: NDArray[np.int32]
    perturbed_speech: NDArray[np.int32]
    aligned: bool

    @classmethod
    def of(
        cls,
        perturbed: Perturbed,
        original: Tokens,
        others: Tokens,
        intervals: Sequence[Interval] | None,
    ) -> "_Pair":
        before, after = perturbed.compared(original.codes, others.codes)
        nothing = before[:0]
        if intervals is None:
            return cls(before, after, nothing, nothing, perturbed.aligned)
        unperturbed = Perturbed(perturbed.waveform, original=perturbed.original)
        return cls(
            before,
            after,
            before[_is_speech(intervals, unperturbed.times(len(before), original.grid))],
            after[_is_speech(intervals, perturbed.times(len(after), original.grid))],
            perturbed.aligned,
        )


def _is_speech(intervals: Sequence[Interval], times: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each time is in an interval that is not labelled as silence."""
    spoken = np.array([*(interval.label not in SILENCE_LABELS for interval in intervals), False])
    found: NDArray[np.bool_] = spoken[intervals_at(intervals, times)]
    return found


def _parts(
    condition: str, pairs: Sequence[_Pair | None], *, with_speech: bool
) -> dict[str, tuple[ArrayLike, ArrayLike]]:
    """The values of one condition; utterances that were too short for it count nothing."""
    nothing: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
    keys = [""] * len(pairs)

    def units(codes: Sequence[NDArray[np.int32]]) -> list[NDArray[np.int32]]:
        return [deduplicate(one)[0] for one in codes]

    parts = ued(
        units([nothing if pair is None else pair.original for pair in pairs]),
        units([nothing if pair is None else pair.perturbed for pair in pairs]),
        keys,
        condition,
    ).parts
    found = dict(parts)
    if with_speech:
        speech = ued(
            units([nothing if pair is None else pair.original_speech for pair in pairs]),
            units([nothing if pair is None else pair.perturbed_speech for pair in pairs]),
            keys,
            condition,
        ).parts
        found |= {name.replace("ued_", "ued_speech_", 1): part for name, part in speech.items()}
    present = [pair for pair in pairs if pair is not None]
    if present and all(pair.aligned for pair in present):
        counts = [
            (0, 0) if pair is None else (int((pair.original == pair.perturbed).sum()), len(pair.original))
            for pair in pairs
        ]
        equal, compared = np.array(counts, dtype=np.float64).T
        found[f"frames_equal_{condition}"] = (100 * equal, compared)
    return found


def _measure(inputs: MetricInputs) -> Result:
    options, sources = inputs.options, inputs.dataset.noise_sources
    missing = {c.name: why for c in options.conditions if (why := sources.missing(c.kind)) is not None}
    conditions = [condition for condition in options.conditions if condition.name not in missing]
    if not conditions:
        raise ValueError(next(iter(missing.values()), "no conditions are given"))
    ratios = robustness(
        inputs.tokenizer,
        inputs.dataset.sample(options.robustness_utterances, options.seed),
        conditions,
        sources,
        phones=inputs.dataset.phones or None,
        codebook=options.codebook,
        seed=options.seed,
        skipped=inputs.skipped,
        progress=inputs.progress,
    )
    strengths = {c.name: {"kind": c.kind, "strength": c.strength, "unit": MEANINGS[c.kind]} for c in conditions}
    details = {"conditions": strengths, "left_out": missing, "utterances": len(ratios.units)}
    return bootstrapped(ratios, inputs, details)


METRIC = Metric("robustness", _measure, package=("rapidfuzz", "rapidfuzz"))
