"""Counts of tokens that add up: frames, runs, bigrams, run lengths, rates over time and by speaker.

Counts of parts add up to those of the whole, in memory that grows with the codebook, the distinct bigrams, the longest
run and the speakers, not with the corpus. ``spintok.stats.metrics`` computes metrics from them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spintok.frames import FRAME_RATE
from spintok.stats.joint_counts import JointCounts
from spintok.tokens import Tokens

__all__ = ["SECONDS", "TokenCounts"]

Counts = NDArray[np.int64]
Utterance = tuple[Tokens, str | None]

SECONDS = 600
"""Bins of the token rate over time, one per second; the last one also counts all that comes later."""
_BATCH = 1000
"""Utterances whose bigrams are sorted together."""


@dataclass(frozen=True, eq=False)
class TokenCounts:
    """Counts over any number of utterances.

    Attributes:
        utterances: their number.
        frames: frames with each code, (K,) int64.
        tokens: runs of each code, (K,) int64.
        run_lengths: runs of 0, 1, 2, ... frames, (L,) int64.
        bigrams: each token and the next one, within utterances.
        over_time: frames, and tokens that begin, in each second from the start of an utterance, (2, SECONDS) int64.
        speakers: utterances, frames and tokens of each speaker; utterances without a speaker are left out.
        frame_rate: frames per second.
    """

    utterances: int
    frames: Counts
    tokens: Counts
    run_lengths: Counts
    bigrams: JointCounts
    over_time: Counts
    speakers: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    frame_rate: int = FRAME_RATE

    @classmethod
    def empty(cls, codebook_size: int, frame_rate: int = FRAME_RATE) -> "TokenCounts":
        """The counts of no utterances."""
        return cls.collect([], codebook_size, frame_rate)

    @classmethod
    def of(cls, tokens: Tokens, speaker: str | None = None) -> "TokenCounts":
        """The counts of one utterance."""
        return cls.collect([(tokens, speaker)], tokens.codebook_size, tokens.frame_rate)

    @classmethod
    def collect(
        cls, utterances: Iterable[Utterance], codebook_size: int, frame_rate: int = FRAME_RATE
    ) -> "TokenCounts":
        """Count utterances, each with its speaker or None, of one codebook, in batches.

        Raises:
            ValueError: tokens of a codebook of another size, or of another frame rate.
        """
        remaining = iter(utterances)
        total = cls._batch([], codebook_size, frame_rate)
        while batch := list(islice(remaining, _BATCH)):
            total += cls._batch(batch, codebook_size, frame_rate)
        return total

    @classmethod
    def _batch(cls, batch: list[Utterance], size: int, frame_rate: int) -> "TokenCounts":
        wrong = next((tokens for tokens, _ in batch if tokens.codebook_size != size), None)
        if wrong is not None:
            raise ValueError(f"tokens of a codebook of {wrong.codebook_size} codes among those of one of {size}")
        rates = {tokens.frame_rate for tokens, _ in batch} | {frame_rate}
        if len(rates) > 1:
            raise ValueError(f"tokens of different frame rates: {', '.join(map(str, sorted(rates)))} per second")
        speakers: dict[str, tuple[int, int, int]] = {}
        over_time = np.zeros((2, SECONDS), dtype=np.int64)
        for tokens, speaker in batch:
            starts = np.cumsum(tokens.durations, dtype=np.int64) - tokens.durations
            for row, frames in enumerate((np.arange(tokens.num_frames), starts)):
                over_time[row] += np.bincount(np.minimum(frames // frame_rate, SECONDS - 1), minlength=SECONDS)
            if speaker is not None:
                before = speakers.get(speaker, (0, 0, 0))
                mine = (1, tokens.num_frames, tokens.units.size)
                speakers[speaker] = (before[0] + mine[0], before[1] + mine[1], before[2] + mine[2])
        codes, units, durations, first, second = (
            np.concatenate([np.zeros(0, dtype=np.int32), *parts])
            for parts in (
                [tokens.codes for tokens, _ in batch],
                [tokens.units for tokens, _ in batch],
                [tokens.durations for tokens, _ in batch],
                [tokens.units[:-1] for tokens, _ in batch],
                [tokens.units[1:] for tokens, _ in batch],
            )
        )
        return cls(
            utterances=len(batch),
            frames=np.bincount(codes, minlength=size),
            tokens=np.bincount(units, minlength=size),
            run_lengths=np.bincount(durations, minlength=1),
            bigrams=JointCounts.of(first, second, size, size),
            over_time=over_time,
            speakers=speakers,
            frame_rate=frame_rate,
        )

    def __add__(self, other: "TokenCounts") -> "TokenCounts":
        if self.codebook_size != other.codebook_size:
            raise ValueError(
                f"counts of codebooks of {self.codebook_size} and {other.codebook_size} codes cannot be added"
            )
        if self.frame_rate != other.frame_rate:
            raise ValueError(f"counts at {self.frame_rate} and {other.frame_rate} frames a second cannot be added")
        longest = max(self.run_lengths.size, other.run_lengths.size)
        speakers = dict(self.speakers)
        for name, (utterances, frames, tokens) in other.speakers.items():
            before = speakers.get(name, (0, 0, 0))
            speakers[name] = (before[0] + utterances, before[1] + frames, before[2] + tokens)
        return TokenCounts(
            self.utterances + other.utterances,
            self.frames + other.frames,
            self.tokens + other.tokens,
            _padded(self.run_lengths, longest) + _padded(other.run_lengths, longest),
            self.bigrams + other.bigrams,
            self.over_time + other.over_time,
            speakers,
            self.frame_rate,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenCounts) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    @property
    def codebook_size(self) -> int:
        """K."""
        return int(self.frames.size)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        seconds = max(np.trim_zeros(row, "b").size for row in self.over_time)
        return {
            "utterances": self.utterances,
            "frame_rate": self.frame_rate,
            "frames": self.frames.tolist(),
            "tokens": self.tokens.tolist(),
            "run_lengths": np.trim_zeros(self.run_lengths, "b").tolist() or [0],
            "bigrams": {"keys": self.bigrams.keys.tolist(), "counts": self.bigrams.counts.tolist()},
            "over_time": self.over_time[:, :seconds].tolist(),
            "speakers": {name: list(counts) for name, counts in sorted(self.speakers.items())},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TokenCounts":
        """The inverse of ``to_dict``. Raises ``ValueError``, ``KeyError`` or ``TypeError`` for anything else."""
        frames, tokens, run_lengths = (_array(values[name]) for name in ("frames", "tokens", "run_lengths"))
        keys, counts = (_array(values["bigrams"][name]) for name in ("keys", "counts"))
        size, rate = frames.size, int(values.get("frame_rate", FRAME_RATE))
        if rate < 1:
            raise ValueError(f"a frame rate of {rate}")
        if tokens.size != size or keys.size != counts.size or (keys.size and not keys.max() < size * size):
            raise ValueError("counts of different shapes")
        seen = [_array(row) for row in values["over_time"]]
        over_time = np.stack([_padded(row, SECONDS) for row in seen]).reshape(2, SECONDS)
        return cls(
            int(values["utterances"]),
            frames,
            tokens,
            run_lengths,
            bigrams=JointCounts(size, size, keys, counts),
            over_time=over_time,
            speakers={name: (int(a), int(b), int(c)) for name, (a, b, c) in values["speakers"].items()},
            frame_rate=rate,
        )


def _array(values: Any) -> Counts:
    try:
        array = np.asarray(values, dtype=np.int64)
    except OverflowError:
        raise ValueError("a count does not fit into 64 bits") from None
    if array.ndim != 1 or (array.size and array.min() < 0):
        raise ValueError("counts must be lists of integers that are not negative")
    return array


def _padded(counts: Counts, size: int) -> Counts:
    return np.pad(counts, (0, size - counts.size))
