"""ABX: is a sound closer to another of its own kind than to one of another kind?

A triple (A, B, X) has A and X of one category (ON), B of another, and all three alike in the rest (BY), but for a
property (ACROSS) that X alone has different. It counts as an error when X is farther from A than from B, as half an
error when it is as far. Schatz et al. 2013, "Evaluating speech features with the Minimal-Pair ABX task"; tasks and
averages are those of ZeroSpeech 2021 as fastabx (Poli et al. 2025) computes them:

- ``phone_within``: ON phone, BY context and speaker; errors are averaged over contexts, then speakers, then ordered
  pairs of phones.
- ``phone_across``: ON phone, BY context, ACROSS speaker; averaged over contexts and X's speakers, then A's speakers,
  then pairs.
- ``speaker``: ON speaker, BY context and phone; averaged over contexts, then phones, then ordered pairs of speakers.
  50 % means that the speaker is gone.

Unlike fastabx, which cuts frames at (t + 1/2) / 50 s, an item has the frames whose centres (``spintok.frames``) lie
in it, and the items of a category that is too large are drawn once for all cells it is in.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spintok.data.alignments import Interval
from spintok.evaluate.dtw import Distance, distances
from spintok.evaluate.phones import SILENCE_LABELS
from spintok.frames import FRAME_RATE, frame_center_seconds

__all__ = ["TASKS", "AbxScore", "Item", "Sampling", "Task", "Unit", "abx", "find_items", "sample_items", "used_items"]

Task = Literal["phone_within", "phone_across", "speaker"]
TASKS: tuple[Task, ...] = ("phone_within", "phone_across", "speaker")
Unit = Literal["triphone", "phoneme"]


class Item(NamedTuple):
    """A stretch of an utterance: the frames [start, stop), the phone in its middle, and what is around it."""

    key: str
    start: int
    stop: int
    phone: str
    context: tuple[str, str]
    speaker: str


@dataclass(frozen=True)
class Sampling:
    """Bounds that keep the work small; the defaults are those of ZeroSpeech.

    Attributes:
        group: items of one kind (phone, context, speaker) at most; the others are left out at random.
        across: speakers of X at most for each kind of A.
        seed: of the draws.
    """

    group: int = 10
    across: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.group, self.across) < 1:
            raise ValueError("ABX needs at least 1 item a group and 1 speaker of X")


def find_items(
    phones: Mapping[str, Sequence[Interval]],
    frames: Mapping[str, int],
    speakers: Mapping[str, str],
    unit: Unit = "triphone",
) -> list[Item]:
    """The items of utterances that have an alignment, a number of frames and a speaker.

    A "triphone" lasts from the start of the phone before to the end of the phone after, neither of them silence; a
    "phoneme" is the phone alone. Items without a frame are left out.
    """
    found = []
    first = frame_center_seconds(0)
    for key in phones:
        if key not in frames or key not in speakers:
            continue
        row = phones[key]
        for before, phone, after in zip(row, row[1:], row[2:], strict=False):
            around = (before.label, after.label)
            if phone.label in SILENCE_LABELS or (unit == "triphone" and not SILENCE_LABELS.isdisjoint(around)):
                continue
            onset, offset = (before.start, after.end) if unit == "triphone" else (phone.start, phone.end)
            # The same microsecond of room as in frame_intervals.
            start, stop = (int(np.ceil((time - first) * FRAME_RATE - 1e-4)) for time in (onset, offset))
            start, stop = max(start, 0), min(stop, frames[key])
            if start < stop:
                found.append(Item(key, start, stop, phone.label, around, speakers[key]))
    return found


def sample_items(items: Sequence[Item], sampling: Sampling | None = None) -> list[Item]:
    """The items that ABX will use, in their order: at most ``sampling.group`` of each phone, context and speaker."""
    sampling = sampling or Sampling()
    rng = np.random.default_rng(sampling.seed)
    kept = [
        i
        for _, group in sorted(_groups(items).items())
        for i in (rng.permutation(group)[: sampling.group].tolist() if len(group) > sampling.group else group)
    ]
    return [items[i] for i in sorted(kept)]


def used_items(items: Sequence[Item], tasks: Sequence[Task] = TASKS, sampling: Sampling | None = None) -> list[Item]:
    """The items that are in any triple of any of the tasks, in their order: no others need features."""
    sampling = sampling or Sampling()
    groups = _groups(items)
    names = sorted(groups)
    used = {number for task in tasks for cell in _cells(names, groups, task, sampling) for number in cell[:3]}
    return [items[i] for i in sorted(i for number in used for i in groups[names[number]])]


@dataclass(frozen=True, eq=False)
class AbxScore:
    """Errors of one task before the last averages, so that speakers can be drawn anew.

    Attributes:
        units: the speakers.
        task: what was asked.
        pairs: the ordered pair (A's category, B's) of each row.
        inner: what the last average but one is over: the speaker, or in the task "speaker" the phone.
        errors: share of errors of each row, averaged over contexts.
        triples: how many triples were looked at.
    """

    units: tuple[str, ...]
    task: Task
    pairs: tuple[tuple[str, str], ...]
    inner: tuple[str, ...]
    errors: NDArray[np.float64]
    triples: int

    def figures(self, weights: NDArray[np.float64] | None = None) -> dict[str, float]:
        """``error`` in per cent; a pair of speakers counts the product of their weights."""
        w = np.ones(len(self.units)) if weights is None else weights
        row, speakers = self._numbers
        if self.task == "speaker":
            inner = np.ones(len(row))
            outer = w[speakers[:, 0]] * w[speakers[:, 1]]
        else:
            inner = w[speakers]
            outer = np.ones(int(row.max()) + 1)
        heard = np.bincount(row, weights=inner)
        mean = np.bincount(row, weights=inner * self.errors) / np.where(heard > 0, heard, 1)
        outer = outer * (heard > 0)
        return {"error": 100 * float(outer @ mean / outer.sum()) if outer.any() else 0.0}

    @cached_property
    def _numbers(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The number of each row's pair, and the speakers that are drawn: of each row, or both of each pair."""
        number = {name: i for i, name in enumerate(self.units)}
        kinds = {pair: i for i, pair in enumerate(dict.fromkeys(self.pairs))}
        row = np.array([kinds[pair] for pair in self.pairs])
        if self.task == "speaker":
            return row, np.array([[number[a], number[b]] for a, b in kinds])
        return row, np.array([number[name] for name in self.inner])


def abx(
    sequences: Sequence[NDArray[Any]],
    items: Sequence[Item],
    task: Task,
    distance: Distance,
    sampling: Sampling | None = None,
) -> AbxScore:
    """Score one task.

    Args:
        sequences: of each item, (T, D) features or (T,) codes, as ``dtw.distances`` takes them.
        items: from ``sample_items``; with the context ("", "") for all, contexts are ignored.
        task, distance, sampling: what is asked, of what, and how many speakers of X there are.

    Raises:
        ValueError: there is no triple at all: too few items, or speakers.
    """
    sampling = sampling or Sampling()
    if len(sequences) != len(items):
        raise ValueError(f"{len(sequences)} sequences for {len(items)} items")
    groups = _groups(items)
    names = sorted(groups)
    cells = list(_cells(names, groups, task, sampling))
    if not cells:
        raise ValueError(f"no ABX triples for {task}: too few items of one phone, context and speaker")
    needed = dict.fromkeys(pair for cell in cells for pair in ((cell.x, cell.a), (cell.x, cell.b)))
    apart = _group_distances(sequences, [groups[name] for name in names], list(needed), distance)
    sums: dict[tuple[str, str, str], list[float]] = {}
    triples = 0
    for cell in cells:
        error, count = _cell_error(apart[cell.x, cell.a], apart[cell.x, cell.b], same=cell.x == cell.a)
        sums.setdefault((cell.on_a, cell.on_b, cell.inner), []).append(error)
        triples += count
    return AbxScore(
        tuple(sorted({item.speaker for item in items})),
        task,
        tuple((a, b) for a, b, _ in sums),
        tuple(inner for _, _, inner in sums),
        np.array([np.mean(errors) for errors in sums.values()]),
        triples,
    )


_Kind = tuple[str, tuple[str, str], str]


def _groups(items: Sequence[Item]) -> dict[_Kind, list[int]]:
    """The numbers of the items of each phone, context and speaker."""
    groups: dict[_Kind, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault((item.phone, item.context, item.speaker), []).append(index)
    return groups


class _Cell(NamedTuple):
    """Triples that are averaged: the numbers of the groups of A, B and X, and the names for the averages after."""

    a: int
    b: int
    x: int
    on_a: str
    on_b: str
    inner: str


def _cells(
    names: Sequence[_Kind],
    groups: Mapping[_Kind, list[int]],
    task: Task,
    sampling: Sampling,
) -> Iterator[_Cell]:
    alike: dict[Hashable, list[int]] = {}
    for number, (phone, context, speaker) in enumerate(names):
        alike.setdefault((context, phone) if task == "speaker" else (context, speaker), []).append(number)
    others: dict[Hashable, list[int]] = {}
    for number, (phone, context, _) in enumerate(names):
        others.setdefault((phone, context), []).append(number)
    rng = np.random.default_rng(sampling.seed)
    for same in alike.values():
        for a in same:
            phone, context, speaker = names[a]
            if task != "phone_across":
                # X is of A's own group, and never A itself.
                xs = [a] if len(groups[names[a]]) > 1 else []
            else:
                xs = [x for x in others[phone, context] if names[x][2] != speaker]
                if len(xs) > sampling.across and len(same) > 1:
                    xs = sorted(rng.permutation(xs)[: sampling.across].tolist())
            for b, x in product(same, xs):
                if b == a:
                    continue
                if task == "speaker":
                    yield _Cell(a, b, x, speaker, names[b][2], phone)
                else:
                    yield _Cell(a, b, x, phone, names[b][0], speaker)


def _group_distances(
    sequences: Sequence[NDArray[Any]],
    groups: Sequence[Sequence[int]],
    needed: Sequence[tuple[int, int]],
    distance: Distance,
) -> dict[tuple[int, int], NDArray[np.float32]]:
    """For each pair of groups (X, Y) the distances of their items, (|X|, |Y|)."""
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
    """The share of errors among the triples of X (rows) with A and with B, and how many triples there are."""
    apart = np.sign(to_a[:, :, None] - to_b[:, None, :])
    if same:
        apart = apart[~np.eye(len(to_a), dtype=bool)]
    return float(0.5 + apart.mean(dtype=np.float64) / 2), apart.size
