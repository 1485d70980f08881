"""Statistics of tokens: counts of utterances that add up.

A ``Statistics`` holds counts only, so those of the parts add up to those of the whole, in memory that grows with the
codebook, the kinds of bigrams, the longest run and the speakers, not with the corpus. ``spintok.stats.metrics``
computes metrics from them.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spintok.frames import FRAME_RATE
from spintok.stats.joint_counts import PairCounts
from spintok.stats.metrics import figures
from spintok.tokens import Tokens

__all__ = ["SECONDS", "Statistics"]

Counts = NDArray[np.int64]
Spoken = tuple[Tokens, str | None]

SECONDS = 600
"""Bins of the token rate over time, a second each; the last one also holds all that comes later."""
_TOGETHER = 1000
"""Utterances whose bigrams are sorted in one go."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """Counts over any number of utterances.

    Attributes:
        utterances: how many.
        frames: frames with each code, (K,).
        tokens: runs of each code, (K,).
        run_lengths: runs of 0, 1, 2, ... frames, (L,).
        bigrams: each token and the one after it, within utterances.
        over_time: frames, and tokens that begin, in each second from the start of an utterance, (2, SECONDS).
        speakers: utterances, frames and tokens of each speaker; what has no speaker is left out.
    """

    utterances: int
    frames: Counts
    tokens: Counts
    run_lengths: Counts
    bigrams: PairCounts
    over_time: Counts
    speakers: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)

    @classmethod
    def empty(cls, codebook_size: int) -> "Statistics":
        """The statistics of no utterances at all."""
        return cls.collect([], codebook_size)

    @classmethod
    def of(cls, tokens: Tokens, speaker: str | None = None) -> "Statistics":
        """The statistics of one utterance."""
        return cls.collect([(tokens, speaker)], tokens.codebook_size)

    @classmethod
    def collect(cls, utterances: Iterable[Spoken], codebook_size: int) -> "Statistics":
        """The statistics of utterances, each with its speaker or None, of one codebook; none is kept."""
        size = codebook_size
        waiting = iter(utterances)
        total = cls._group([], size)
        while group := list(islice(waiting, _TOGETHER)):
            total += cls._group(group, size)
        return total

    @classmethod
    def _group(cls, group: list[Spoken], size: int) -> "Statistics":
        wrong = next((tokens for tokens, _ in group if tokens.codebook_size != size), None)
        if wrong is not None:
            raise ValueError(f"tokens of a codebook of {wrong.codebook_size} codes among those of one of {size}")
        speakers: dict[str, tuple[int, int, int]] = {}
        over_time = np.zeros((2, SECONDS), dtype=np.int64)
        for tokens, speaker in group:
            starts = np.cumsum(tokens.durations, dtype=np.int64) - tokens.durations
            for row, frames in enumerate((np.arange(tokens.num_frames), starts)):
                over_time[row] += np.bincount(np.minimum(frames // FRAME_RATE, SECONDS - 1), minlength=SECONDS)
            if speaker is not None:
                before = speakers.get(speaker, (0, 0, 0))
                mine = (1, tokens.num_frames, tokens.units.size)
                speakers[speaker] = (before[0] + mine[0], before[1] + mine[1], before[2] + mine[2])
        codes, units, durations, first, second = (
            np.concatenate([np.zeros(0, dtype=np.int32), *parts])
            for parts in (
                [tokens.codes for tokens, _ in group],
                [tokens.units for tokens, _ in group],
                [tokens.durations for tokens, _ in group],
                [tokens.units[:-1] for tokens, _ in group],
                [tokens.units[1:] for tokens, _ in group],
            )
        )
        return cls(
            utterances=len(group),
            frames=np.bincount(codes, minlength=size),
            tokens=np.bincount(units, minlength=size),
            run_lengths=np.bincount(durations, minlength=1),
            bigrams=PairCounts.of(first, second, size, size),
            over_time=over_time,
            speakers=speakers,
        )

    def __add__(self, other: "Statistics") -> "Statistics":
        if self.codebook_size != other.codebook_size:
            raise ValueError(
                f"statistics of codebooks of {self.codebook_size} and {other.codebook_size} codes cannot be added"
            )
        longest = max(self.run_lengths.size, other.run_lengths.size)
        speakers = dict(self.speakers)
        for name, (utterances, frames, tokens) in other.speakers.items():
            before = speakers.get(name, (0, 0, 0))
            speakers[name] = (before[0] + utterances, before[1] + frames, before[2] + tokens)
        return Statistics(
            self.utterances + other.utterances,
            self.frames + other.frames,
            self.tokens + other.tokens,
            _grown(self.run_lengths, longest) + _grown(other.run_lengths, longest),
            self.bigrams + other.bigrams,
            self.over_time + other.over_time,
            speakers,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Statistics) and self.counts() == other.counts()

    __hash__ = None  # type: ignore[assignment]

    @property
    def codebook_size(self) -> int:
        """K."""
        return int(self.frames.size)

    def figures(self, silence: Iterable[int] | None = None) -> dict[str, Any]:
        """All metrics by name (``spintok.stats.metrics``); ``silence`` lists the codes of silence."""
        return figures(self, silence)

    def counts(self) -> dict[str, Any]:
        """The counts as plain lists: all that ``from_counts`` needs."""
        seconds = max(np.trim_zeros(row, "b").size for row in self.over_time)
        return {
            "utterances": self.utterances,
            "frames": self.frames.tolist(),
            "tokens": self.tokens.tolist(),
            "run_lengths": np.trim_zeros(self.run_lengths, "b").tolist() or [0],
            "bigrams": {"keys": self.bigrams.keys.tolist(), "counts": self.bigrams.counts.tolist()},
            "over_time": self.over_time[:, :seconds].tolist(),
            "speakers": {name: list(counts) for name, counts in sorted(self.speakers.items())},
        }

    @classmethod
    def from_counts(cls, counts: Mapping[str, Any]) -> "Statistics":
        """What ``counts`` wrote."""
        arrays = {name: np.asarray(counts[name], dtype=np.int64) for name in ("frames", "tokens", "run_lengths")}
        size = arrays["frames"].size
        keys, times = (np.asarray(counts["bigrams"][name], dtype=np.int64) for name in ("keys", "counts"))
        over_time = np.zeros((2, SECONDS), dtype=np.int64)
        found = np.asarray(counts["over_time"], dtype=np.int64).reshape(2, -1)
        over_time[:, : found.shape[1]] = found
        return cls(
            int(counts["utterances"]),
            **arrays,
            bigrams=PairCounts(size, size, keys, times),
            over_time=over_time,
            speakers={name: (int(a), int(b), int(c)) for name, (a, b, c) in counts["speakers"].items()},
        )

    def to_json(self, silence: Iterable[int] | None = None, more: Mapping[str, Any] | None = None) -> str:
        """Figures for people and counts for adding, as one JSON object; ``more`` goes in beside them.

        A line a figure; the counts, which are for machines, are one line.
        """
        figures = json.dumps({"figures": self.figures(silence), **(more or {})}, indent=2)
        return f'{figures.removesuffix("}").rstrip()},\n  "counts": {json.dumps(self.counts())}\n}}\n'

    @classmethod
    def read(cls, path: Path) -> "Statistics":
        """The statistics that ``to_json`` wrote."""
        try:
            return cls.from_counts(json.loads(path.read_text(encoding="utf-8"))["counts"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not the JSON that spintok stats writes ({error!r})") from None


def _grown(counts: Counts, size: int) -> Counts:
    return np.pad(counts, (0, size - counts.size))
