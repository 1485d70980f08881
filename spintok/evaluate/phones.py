"""How well codes match phones or characters: purity, normalised mutual information, and boundaries.

CNMI is PNMI over characters instead of phones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spintok.data.labels.alignments import PHONE_CLASSES, SILENCE_LABELS, Interval, characters
from spintok.evaluate.bootstrap import jackknife
from spintok.evaluate.boundaries import TOLERANCE, Boundaries, boundary_counts
from spintok.evaluate.metric import Metric, MetricInputs, Result, bootstrapped, grouped, slug
from spintok.stats.joint_counts import JointCounts
from spintok.stats.label_counts import LabelCounts
from spintok.tokens import Tokens

__all__ = ["METRIC", "PhoneScore"]


class _WeightedCounts:
    """Label counts of utterances, summed with any weights."""

    def __init__(self, parts: Sequence[LabelCounts], codebook_size: int) -> None:
        self.total = LabelCounts.summed(parts, codebook_size)
        keys = [part.relabelled(self.total.labels).keys for part in parts]
        self._place = np.searchsorted(self.total.joint.keys, np.concatenate(keys))
        self._amount = np.concatenate([part.joint.counts for part in parts])
        self._unit = np.repeat(np.arange(len(parts)), [part.joint.counts.size for part in parts])
        self.frames = np.array([part.frames for part in parts])

    def summed(self, weights: NDArray[np.float64]) -> LabelCounts:
        """The sum with each utterance counted ``weights`` (N,) times."""
        joint = self.total.joint
        sums = np.bincount(self._place, weights=weights[self._unit] * self._amount, minlength=joint.keys.size)
        weighted = JointCounts(joint.rows, joint.columns, joint.keys, sums)
        return LabelCounts(self.total.labels, weighted, float(weights @ self.frames))


class PhoneScore:
    """Phone metrics of aligned utterances, an ``Estimator`` for the bootstrap.

    Args:
        tokens: tokens of each utterance, from one codebook.
        intervals: phones or characters of each utterance.
        prefix: prefix of the names of the values.
        tolerance: tolerance of boundaries in seconds; None leaves boundaries out.

    Values: ``{prefix}_purity``, ``{prefix}_cluster_purity`` and ``pnmi`` (``cnmi`` for characters); the same with the
    suffix ``_speech`` over the frames that are not labelled as silence; the same with the suffix ``_10ms`` over two
    labels per frame (``LabelCounts.of_10ms``), which is how published scripts count; ``phone_recall_vowels`` and those
    of the other ``PHONE_CLASSES`` that occur: the share of their frames whose code has their phone as its most common
    one; and ``boundary_precision``, ``boundary_recall``, ``boundary_f1`` and ``boundary_r_value``.
    """

    def __init__(
        self,
        tokens: Mapping[str, Tokens],
        intervals: Mapping[str, Sequence[Interval]],
        prefix: Literal["phone", "character"] = "phone",
        tolerance: float | None = TOLERANCE,
    ) -> None:
        self.units = tuple(key for key in tokens if key in intervals)
        if not self.units:
            raise ValueError("no utterance has both tokens and an alignment")
        self._prefix = prefix
        size = tokens[self.units[0]].codebook_size
        self._counts = _WeightedCounts([LabelCounts.of(tokens[key], intervals[key]) for key in self.units], size)
        self._counts_10ms = _WeightedCounts(
            [LabelCounts.of_10ms(tokens[key], intervals[key]) for key in self.units], size
        )
        found = [boundary_counts(tokens[key], intervals[key], tolerance) for key in self.units] if tolerance else []
        self._boundaries = np.array([(b.matched, b.hypothesized, b.reference) for b in found]) if found else None

    @property
    def counts(self) -> LabelCounts:
        """The counts of all utterances."""
        return self._counts.total

    @property
    def frames(self) -> NDArray[np.int64]:
        """The number of frames of each utterance, (N,)."""
        return self._counts.frames

    def values(self, weights: NDArray[np.float64] | None = None) -> dict[str, float]:
        """The values with each utterance counted ``weights`` (N,) times; None counts each once."""
        w = np.ones(len(self.units)) if weights is None else weights
        whole = self._counts.summed(w)
        found = self._named(whole, "") | self._named(whole.without(SILENCE_LABELS), "_speech")
        found |= self._named(self._counts_10ms.summed(w), "_10ms")
        found[f"{self._prefix}_labelled_share"] = whole.metrics()["labelled_share"]
        if self._prefix == "phone":
            found |= _recalls(whole)
        if self._boundaries is not None:
            matched, mine, theirs = (w @ self._boundaries).tolist()
            rates = Boundaries(matched, mine, theirs).metrics()
            found |= {f"boundary_{name}": value for name, value in rates.items()}
        return found

    def _named(self, counts: LabelCounts, suffix: str) -> dict[str, float]:
        metrics = counts.metrics()
        information = {"phone": "pnmi", "character": "cnmi"}[self._prefix]
        return {
            f"{self._prefix}_purity{suffix}": metrics["label_purity"],
            f"{self._prefix}_cluster_purity{suffix}": metrics["cluster_purity"],
            f"{information}{suffix}": metrics["normalized_mutual_information"],
        }


def _recalls(counts: LabelCounts) -> dict[str, float]:
    """The share of the frames of each class of phones whose code has their phone as its most common one."""
    by_label, found = counts.recalled(), {}
    for name, members in PHONE_CLASSES.items():
        mine = [by_label[label] for label in by_label if label in members]
        if mine:
            right, frames = np.sum(mine, axis=0).tolist()
            # With weights of a bootstrap there may be no frame.
            found[f"phone_recall_{name}"] = right / frames if frames else 0.0
    return found


def _missing(inputs: MetricInputs) -> str | None:
    if not inputs.dataset.phones and not inputs.dataset.words:
        return "neither phones nor words are given (--alignments, --words)"
    return None


def _measure(inputs: MetricInputs) -> Result:
    tokens, dataset = inputs.encoded.tokens, inputs.dataset
    found = Result({})
    if phones := dataset.phones:
        score = PhoneScore(tokens, phones, "phone", inputs.options.tolerance)
        details = {
            "silence_codes": score.counts.codes_of(SILENCE_LABELS),
            "phone_by_code": score.counts.table(),
            "recall": {phone: right / frames for phone, (right, frames) in score.counts.recalled().items()},
        }
        found = _corrected(bootstrapped(score, inputs, details), score, inputs)
        aligners = {key: aligner for key in phones if (aligner := dataset.alignments[key].aligner) is not None}
        for aligner in sorted(set(aligners.values())) if len(set(aligners.values())) > 1 else ():
            mine = {key: intervals for key, intervals in phones.items() if aligners.get(key) == aligner}
            found = _joined(found, _of_aligner(aligner, mine, inputs))
    if words := dataset.words:
        letters = {key: characters(intervals) for key, intervals in words.items()}
        found = _joined(found, bootstrapped(PhoneScore(tokens, letters, "character", None), inputs))
    return found


def _corrected(result: Result, score: PhoneScore, inputs: MetricInputs) -> Result:
    """The result with ``pnmi_corrected``: PNMI without the bias of small samples, by the jackknife over speakers."""
    estimator = grouped(score, inputs)
    if len(estimator.units) < 2:
        return result
    value = jackknife(estimator, estimator.sums(score.frames))["pnmi"]
    # An interval is shifted to its value, so that the draws of the uncorrected value serve.
    draws = {"pnmi_corrected": result.draws["pnmi"]} if result.draws else {}
    return replace(result, values=result.values | {"pnmi_corrected": value}, draws=result.draws | draws)


def _of_aligner(aligner: str, phones: Mapping[str, Sequence[Interval]], inputs: MetricInputs) -> Result:
    """PNMI and purities of the utterances of one aligner, whose name is their suffix."""
    try:
        score = PhoneScore(inputs.encoded.tokens, phones, "phone", None)
    except ValueError:
        return Result({})
    result = _corrected(bootstrapped(score, inputs), score, inputs)
    suffix = slug(aligner)
    details = {f"aligner_{suffix}": {"name": aligner, "utterances": len(score.units), "drawn": result.drawn}}
    values = {f"{name}_{suffix}": value for name, value in result.values.items()}
    return Result(values, {f"{name}_{suffix}": draws for name, draws in result.draws.items()}, "", details)


def _joined(first: Result, second: Result) -> Result:
    return Result(
        first.values | second.values,
        first.draws | second.draws,
        first.drawn or second.drawn,
        first.details | second.details,
    )


METRIC = Metric("phones", _measure, _missing)
