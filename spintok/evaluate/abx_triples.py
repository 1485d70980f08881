"""Triples of an ABX test: which segments of speech are compared with which.

A triple (A, B, X) has A and X of one category (ON) and B of another. All three agree in the remaining properties (BY),
except for one property (ACROSS) in which X alone differs. Schatz et al. 2013, "Evaluating speech features with the
Minimal-Pair ABX task"; the tasks are those of ZeroSpeech 2021 as fastabx (Poli et al. 2025) computes them:

- ``phone_within``: ON phone, BY context and speaker.
- ``phone_across``: ON phone, BY context, ACROSS speaker.
- ``speaker``: ON speaker, BY context and phone.

Unlike fastabx, which cuts frames at (t + 1/2) / 50 s, a segment has the frames whose centres (``spintok.frames``) lie
in it, and a category that has too many segments is sampled once for all cells that use it.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, NamedTuple

import numpy as np

from spintok.data.labels.alignments import SILENCE_LABELS, Interval
from spintok.frames import GRID, FrameGrid, frame_center_seconds

__all__ = [
    "TASKS",
    "AbxTask",
    "Cell",
    "Sampling",
    "Segment",
    "Unit",
    "find_segments",
    "group_segments",
    "iter_cells",
    "sample_segments",
    "used_segments",
]

AbxTask = Literal["phone_within", "phone_across", "speaker"]
TASKS: tuple[AbxTask, ...] = ("phone_within", "phone_across", "speaker")
Unit = Literal["triphone", "phoneme"]


class Segment(NamedTuple):
    """The frames [start, stop) of an utterance, the phone in the middle of them, and the phones around it."""

    key: str
    start: int
    stop: int
    phone: str
    context: tuple[str, str]
    speaker: str


@dataclass(frozen=True)
class Sampling:
    """Limits that keep the work small. The defaults are those of ZeroSpeech.

    Attributes:
        group: the most segments with the same phone, context and speaker; more are sampled at random.
        across: the most speakers of X for each category of A.
        seed: seed of the random choices.
    """

    group: int = 10
    across: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.group, self.across) < 1:
            raise ValueError("ABX needs at least 1 segment a group and 1 speaker of X")


def find_segments(
    phones: Mapping[str, Sequence[Interval]],
    frames: Mapping[str, int],
    speakers: Mapping[str, str],
    unit: Unit = "triphone",
    grid: FrameGrid = GRID,
) -> list[Segment]:
    """The segments of utterances that have an alignment, a number of frames and a speaker.

    A "triphone" lasts from the start of the previous phone to the end of the next one, neither of them silence. A
    "phoneme" is the phone alone. Segments without a frame are left out.
    """
    found = []
    first = frame_center_seconds(0, grid)
    for key in phones:
        if key not in frames or key not in speakers:
            continue
        row = phones[key]
        for before, phone, after in zip(row, row[1:], row[2:], strict=False):
            around = (before.label, after.label)
            if phone.label in SILENCE_LABELS or (unit == "triphone" and not SILENCE_LABELS.isdisjoint(around)):
                continue
            onset, offset = (before.start, after.end) if unit == "triphone" else (phone.start, phone.end)
            # frame_intervals has the same tolerance of a microsecond.
            start, stop = (int(np.ceil((time - first) * grid.rate - 1e-4)) for time in (onset, offset))
            start, stop = max(start, 0), min(stop, frames[key])
            if start < stop:
                found.append(Segment(key, start, stop, phone.label, around, speakers[key]))
    return found


def sample_segments(segments: Sequence[Segment], sampling: Sampling | None = None) -> list[Segment]:
    """At most ``sampling.group`` segments of each phone, context and speaker, in their order."""
    sampling = sampling or Sampling()
    rng = np.random.default_rng(sampling.seed)
    kept = [
        i
        for _, group in sorted(group_segments(segments).items())
        for i in (rng.permutation(group)[: sampling.group].tolist() if len(group) > sampling.group else group)
    ]
    return [segments[i] for i in sorted(kept)]


def used_segments(
    segments: Sequence[Segment], tasks: Sequence[AbxTask] = TASKS, sampling: Sampling | None = None
) -> list[Segment]:
    """The segments that occur in any triple of these tasks, in their order; only they need features."""
    sampling = sampling or Sampling()
    groups = group_segments(segments)
    names = sorted(groups)
    used = {number for task in tasks for cell in iter_cells(names, groups, task, sampling) for number in cell[:3]}
    return [segments[i] for i in sorted(i for number in used for i in groups[names[number]])]


Category = tuple[str, tuple[str, str], str]


def group_segments(segments: Sequence[Segment]) -> dict[Category, list[int]]:
    """The indices of the segments of each category: phone, context and speaker."""
    groups: dict[Category, list[int]] = {}
    for index, segment in enumerate(segments):
        groups.setdefault((segment.phone, segment.context, segment.speaker), []).append(index)
    return groups


class Cell(NamedTuple):
    """Triples whose errors are averaged: indices of the categories of A, B and X, and the keys of later averages."""

    a: int
    b: int
    x: int
    on_a: str
    on_b: str
    inner: str


def iter_cells(
    names: Sequence[Category],
    groups: Mapping[Category, list[int]],
    task: AbxTask,
    sampling: Sampling,
) -> Iterator[Cell]:
    """The cells of a task; ``names`` are the sorted categories, and cells refer to their indices."""
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
                    yield Cell(a, b, x, speaker, names[b][2], phone)
                else:
                    yield Cell(a, b, x, phone, names[b][0], speaker)
