"""ABX errors: is a segment closer to another one of its own category than to one of another category?

A triple (A, B, X) (``spintok.evaluate.abx_triples``) is an error if X is farther from A than from B, and half an error
if both are equally far. Averages are those of ZeroSpeech 2021 as fastabx (Poli et al. 2025) computes them:

- ``phone_within``: errors are averaged over contexts, then speakers, then ordered pairs of phones.
- ``phone_across``: errors are averaged over contexts and X's speakers, then A's speakers, then ordered pairs of phones.
- ``speaker``: errors are averaged over contexts, then phones, then ordered pairs of speakers. 50 % means that the
  segments hold no trace of the speaker.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spintok.evaluate.abx_triples import (
    TASKS,
    AbxTask,
    Sampling,
    Segment,
    find_segments,
    group_segments,
    iter_cells,
    sample_segments,
    used_segments,
)
from spintok.evaluate.dtw import Distance, distances, unit_rows
from spintok.evaluate.metric import Metric, MetricInputs, Result, bootstrapped_speakers

__all__ = ["METRIC", "AbxScore", "abx"]


@dataclass(frozen=True, eq=False)
class AbxScore:
    """Errors of one task before the last two averages, so that the bootstrap can weight speakers.

    Attributes:
        units: the speakers.
        task: the task.
        pairs: the ordered pair (A's category, B's) of each row.
        inner: the speaker of each row, or in the task "speaker" its phone: the last average but one is over these.
        errors: the share of errors of each row, averaged over contexts.
        triples: the number of triples.
    """

    units: tuple[str, ...]
    task: AbxTask
    pairs: tuple[tuple[str, str], ...]
    inner: tuple[str, ...]
    errors: NDArray[np.float64]
    triples: int

    def values(self, weights: NDArray[np.float64] | None = None) -> dict[str, float]:
        """``error`` in per cent. A pair of speakers has the product of their weights."""
        w = np.ones(len(self.units)) if weights is None else weights
        row, speakers = self._numbers
        if self.task == "speaker":
            inner = np.ones(len(row))
            outer = w[speakers[:, 0]] * w[speakers[:, 1]]
        else:
            inner = w[speakers]
            outer = np.ones(int(row.max()) + 1)
        total = np.bincount(row, weights=inner)
        mean = np.bincount(row, weights=inner * self.errors) / np.where(total > 0, total, 1)
        outer = outer * (total > 0)
        return {"error": 100 * float(outer @ mean / outer.sum()) if outer.any() else 0.0}

    @cached_property
    def _numbers(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The index of each row's pair, and the indices of the speakers: of each row, or both of each pair."""
        number = {name: i for i, name in enumerate(self.units)}
        kinds = {pair: i for i, pair in enumerate(dict.fromkeys(self.pairs))}
        row = np.array([kinds[pair] for pair in self.pairs])
        if self.task == "speaker":
            return row, np.array([[number[a], number[b]] for a, b in kinds])
        return row, np.array([number[name] for name in self.inner])


def abx(
    sequences: Sequence[NDArray[Any]],
    segments: Sequence[Segment],
    task: AbxTask,
    distance: Distance,
    sampling: Sampling | None = None,
) -> AbxScore:
    """Score one task.

    Args:
        sequences: (T, D) features or (T,) codes of each segment, as ``dtw.distances`` takes them.
        segments: what ``sample_segments`` returned. To ignore contexts, give all of them the context ("", "").
        task: which triples to compare.
        distance: the distance between two frames.
        sampling: limits the speakers of X.

    Raises:
        ValueError: there is no triple, because there are too few segments or speakers.
    """
    sampling = sampling or Sampling()
    if len(sequences) != len(segments):
        raise ValueError(f"{len(sequences)} sequences for {len(segments)} segments")
    groups = group_segments(segments)
    names = sorted(groups)
    cells = list(iter_cells(names, groups, task, sampling))
    if not cells:
        raise ValueError(f"no ABX triples for {task}: too few segments of one phone, context and speaker")
    needed = dict.fromkeys(pair for cell in cells for pair in ((cell.x, cell.a), (cell.x, cell.b)))
    apart = _group_distances(sequences, [groups[name] for name in names], list(needed), distance)
    sums: dict[tuple[str, str, str], list[float]] = {}
    triples = 0
    for cell in cells:
        error, count = _cell_error(apart[cell.x, cell.a], apart[cell.x, cell.b], same=cell.x == cell.a)
        sums.setdefault((cell.on_a, cell.on_b, cell.inner), []).append(error)
        triples += count
    return AbxScore(
        tuple(sorted({segment.speaker for segment in segments})),
        task,
        tuple((a, b) for a, b, _ in sums),
        tuple(inner for _, _, inner in sums),
        np.array([np.mean(errors) for errors in sums.values()]),
        triples,
    )


def _group_distances(
    sequences: Sequence[NDArray[Any]],
    groups: Sequence[Sequence[int]],
    needed: Sequence[tuple[int, int]],
    distance: Distance,
) -> dict[tuple[int, int], NDArray[np.float32]]:
    """For each pair of groups (X, Y) the distances of their segments, (|X|, |Y|)."""
    members = [np.array(group) for group in groups]
    first, second = [], []
    for x, y in needed:
        ours, theirs = members[x], members[y]
        if x == y:
            i, j = np.triu_indices(len(ours), 1)
            first.append(ours[i])
            second.append(ours[j])
        else:
            first.append(np.repeat(ours, len(theirs)))
            second.append(np.tile(theirs, len(ours)))
    flat = distances(sequences, np.concatenate(first), np.concatenate(second), distance)
    found = {}
    at = 0
    for (x, y), pairs in zip(needed, first, strict=True):
        some = flat[at : at + len(pairs)]
        at += len(pairs)
        if x != y:
            found[x, y] = some.reshape(len(members[x]), len(members[y]))
            continue
        matrix = np.zeros((len(members[x]), len(members[x])), dtype=np.float32)
        matrix[np.triu_indices(len(matrix), 1)] = some
        found[x, y] = matrix + matrix.T
    return found


def _cell_error(to_a: NDArray[np.float32], to_b: NDArray[np.float32], *, same: bool) -> tuple[float, int]:
    """The share of errors among all triples of X (rows) with A and B, and the number of triples."""
    apart = np.sign(to_a[:, :, None] - to_b[:, None, :])
    if same:
        apart = apart[~np.eye(len(to_a), dtype=bool)]
    return float(0.5 + apart.mean(dtype=np.float64) / 2), apart.size


@dataclass(frozen=True)
class _AbxScores:
    """Scores over the same speakers, each with its own name."""

    scores: Mapping[str, AbxScore]

    @property
    def units(self) -> tuple[str, ...]:
        return next(iter(self.scores.values())).units

    def values(self, weights: NDArray[np.float64] | None = None) -> dict[str, float]:
        return {name: score.values(weights)["error"] for name, score in self.scores.items()}


def _missing(inputs: MetricInputs) -> str | None:
    if not inputs.dataset.phones:
        return "no phones are given (--alignments)"
    if not inputs.dataset.speakers:
        return "speakers are not known: give a manifest with a field speaker"
    return None


def _segments(inputs: MetricInputs) -> list[Segment]:
    phones, options = inputs.dataset.phones, inputs.options
    # The lengths of the utterances are not known before they are encoded.
    found = find_segments(
        phones, dict.fromkeys(phones, 2**31), inputs.dataset.speakers, options.unit, inputs.tokenizer.grid
    )
    return used_segments(sample_segments(found, options.sampling), sampling=options.sampling)


def _measure(inputs: MetricInputs) -> Result:
    encoded, options = inputs.encoded, inputs.options
    codebook = inputs.tokenizer.codebook(inputs.codebook)
    codewords = unit_rows(codebook.normalized_codewords().detach().cpu().numpy())
    codes = [encoded.tokens[segment.key].codes[segment.start : segment.stop] for segment in encoded.segments]
    sources: dict[str, tuple[list[NDArray[Any]], Distance]] = {
        "tokens": (list(codes), "identical"),
        "codewords": ([codewords[one] for one in codes], "angular"),
        "features": ([unit_rows(one) for one in encoded.segment_features], "angular"),
    }
    scores: dict[str, AbxScore] = {}
    details: dict[str, Any] = {"unit": options.unit, "items": len(encoded.segments), "triples": {}, "left_out": {}}
    for task in TASKS:
        for source, (sequences, distance) in sources.items():
            try:
                score = abx(sequences, encoded.segments, task, distance, options.sampling)
            except ValueError as error:
                details["left_out"][task] = str(error)
                break
            scores[f"{task}_{source}"] = score
            details["triples"][task] = score.triples
    if not scores:
        raise ValueError(next(iter(details["left_out"].values())))
    return bootstrapped_speakers(_AbxScores(scores), options, details)


METRIC = Metric("abx", _measure, _missing, segments=_segments)
