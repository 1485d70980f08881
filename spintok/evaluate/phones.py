"""How well codes match phones or characters: purity, normalised mutual information, and boundaries.

CNMI is PNMI over characters instead of phones.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spintok.data.alignments import SILENCE_LABELS, Interval, characters
from spintok.evaluate.boundaries import TOLERANCE, Boundaries, boundary_counts
from spintok.evaluate.metric import Metric, MetricInputs, Result, bootstrapped
from spintok.stats.joint_counts import JointCounts
from spintok.stats.label_counts import LabelCounts
from spintok.tokens import Tokens

__all__ = ["METRIC", "PhoneScore"]


class PhoneScore:
    """Phone metrics of aligned utterances, an ``Estimator`` for the bootstrap.

    Args:
        tokens: tokens of each utterance, from one codebook.
        intervals: phones or characters of each utterance.
        prefix: prefix of the names of the values.
        tolerance: tolerance of boundaries in seconds; None leaves boundaries out.

    Values: ``{prefix}_purity``, ``{prefix}_cluster_purity`` and ``pnmi`` (``cnmi`` for characters); the same with the
    suffix ``_speech`` over the frames that are not labelled as silence; and ``boundary_precision``,
    ``boundary_recall``, ``boundary_f1`` and ``boundary_r_value``.
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
        parts = [LabelCounts.of(tokens[key], intervals[key]) for key in self.units]
        self.counts = LabelCounts.summed(parts, size)
        keys = [part.relabelled(self.counts.labels).keys for part in parts]
        self._place = np.searchsorted(self.counts.joint.keys, np.concatenate(keys))
        self._amount = np.concatenate([part.joint.counts for part in parts])
        self._unit = np.repeat(np.arange(len(parts)), [part.joint.counts.size for part in parts])
        self._frames = np.array([part.frames for part in parts])
        found = [boundary_counts(tokens[key], intervals[key], tolerance) for key in self.units] if tolerance else []
        self._boundaries = np.array([(b.matched, b.hypothesized, b.reference) for b in found]) if found else None

    def values(self, weights: NDArray[np.float64] | None = None) -> dict[str, float]:
        """The values with each utterance counted ``weights`` (N,) times; None counts each once."""
        w = np.ones(len(self.units)) if weights is None else weights
        sums = np.bincount(self._place, weights=w[self._unit] * self._amount, minlength=self.counts.joint.keys.size)
        joint = JointCounts(self.counts.joint.rows, self.counts.joint.columns, self.counts.joint.keys, sums)
        whole = LabelCounts(self.counts.labels, joint, float(w @ self._frames))
        found = self._named(whole, "") | self._named(whole.without(SILENCE_LABELS), "_speech")
        found[f"{self._prefix}_labelled_share"] = whole.metrics()["labelled_share"]
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


def _missing(inputs: MetricInputs) -> str | None:
    if not inputs.dataset.phones and not inputs.dataset.words:
        return "neither phones nor words are given (--alignments, --words)"
    return None


def _measure(inputs: MetricInputs) -> Result:
    tokens, options = inputs.encoded.tokens, inputs.options
    found = []
    if phones := inputs.dataset.phones:
        score = PhoneScore(tokens, phones, "phone", options.tolerance)
        details = {"silence_codes": score.counts.codes_of(SILENCE_LABELS), "phone_by_code": score.counts.table()}
        found.append(bootstrapped(score, options, details=details))
    if words := inputs.dataset.words:
        letters = {key: characters(intervals) for key, intervals in words.items()}
        found.append(bootstrapped(PhoneScore(tokens, letters, "character", None), options))
    first, last = found[0], found[-1]
    return Result(first.values | last.values, first.draws | last.draws, first.drawn, first.details | last.details)


METRIC = Metric("phones", _measure, _missing)
