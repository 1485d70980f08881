"""Statistics of tokens: rates, the three bitrates, usage and imbalance of codewords, run lengths.

A ``Statistics`` holds counts only, so those of the parts add up to those of the whole, in memory that does not
grow with the corpus. Figures and their names follow Wang et al. 2024, arXiv 2411.08742.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spintok.frames import FRAME_RATE
from spintok.tokens import Tokens

__all__ = ["Statistics"]

Counts = NDArray[np.int64]

TAIL = 0.2
"""The share of codewords, rarest first, whose occurrences the tail share counts."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """Counts over any number of utterances.

    Attributes:
        utterances: how many.
        frames: frames with each code, (K,).
        tokens: runs of each code, (K,).
        run_lengths: runs of 0, 1, 2, ... frames, (L,).
    """

    utterances: int
    frames: Counts
    tokens: Counts
    run_lengths: Counts

    @classmethod
    def empty(cls, codebook_size: int) -> "Statistics":
        """The statistics of no utterances at all."""
        zeros = np.zeros(codebook_size, dtype=np.int64)
        return cls(0, zeros, zeros, np.zeros(1, dtype=np.int64))

    @classmethod
    def of(cls, tokens: Tokens) -> "Statistics":
        """The statistics of one utterance."""
        size = tokens.codebook_size
        return cls(
            utterances=1,
            frames=np.bincount(tokens.codes, minlength=size),
            tokens=np.bincount(tokens.units, minlength=size),
            run_lengths=np.bincount(tokens.durations, minlength=1),
        )

    def __add__(self, other: "Statistics") -> "Statistics":
        if self.codebook_size != other.codebook_size:
            raise ValueError(
                f"statistics of codebooks of {self.codebook_size} and {other.codebook_size} codes cannot be added"
            )
        longest = max(self.run_lengths.size, other.run_lengths.size)
        return Statistics(
            self.utterances + other.utterances,
            self.frames + other.frames,
            self.tokens + other.tokens,
            _grown(self.run_lengths, longest) + _grown(other.run_lengths, longest),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Statistics) and self.counts() == other.counts()

    __hash__ = None  # type: ignore[assignment]

    @property
    def codebook_size(self) -> int:
        """K."""
        return int(self.frames.size)

    def figures(self) -> dict[str, Any]:
        """Every figure by name.

        Rates are a second of framed speech. ``frame_bitrate`` = log2 K x frame rate; ``token_bitrate`` = log2 K x
        token rate; ``entropy_bitrate`` = entropy x token rate. ``entropy`` (bits) and what follows from it are over
        tokens, after de-duplication. ``tail_share``: occurrences held by the rarest 20 % of codewords, 0.2 when
        usage is even. ``imbalance`` = 1 - entropy / log2 K. ``gini``: 0 when even, towards 1 when one code has all.
        """
        size, frames, tokens = self.codebook_size, int(self.frames.sum()), int(self.tokens.sum())
        seconds = frames / FRAME_RATE
        bits = math.log2(size)
        share = self.tokens / max(tokens, 1)
        entropy = float(-(share[share > 0] * np.log2(share[share > 0])).sum()) + 0.0
        token_rate = tokens / seconds if frames else 0.0
        order = np.argsort(-self.tokens, kind="stable")
        return {
            "utterances": self.utterances,
            "hours": seconds / 3600,
            "frames": frames,
            "tokens": tokens,
            "codebook_size": size,
            "frame_rate": float(FRAME_RATE),
            "token_rate": token_rate,
            "frame_bitrate": bits * FRAME_RATE,
            "token_bitrate": bits * token_rate,
            "entropy_bitrate": entropy * token_rate,
            "entropy": entropy,
            "perplexity": 2.0**entropy,
            "active_codewords": int(np.count_nonzero(self.tokens)),
            "tail_share": _tail_share(share),
            "gini": _gini(share),
            "imbalance": 1 - entropy / bits if size > 1 and tokens else 0.0,
            "run_length_mean": frames / tokens if tokens else 0.0,
            "run_length_median": _quantile(self.run_lengths, 0.5),
            "run_length_p90": _quantile(self.run_lengths, 0.9),
            "run_length_max": int(np.flatnonzero(self.run_lengths).max(initial=0)),
            "most_used": [[int(code), int(self.tokens[code])] for code in order[:10]],
            "least_used": [[int(code), int(self.tokens[code])] for code in order[::-1][:10]],
        }

    def counts(self) -> dict[str, Any]:
        """The counts as plain lists: all that ``from_counts`` needs."""
        return {
            "utterances": self.utterances,
            "frames": self.frames.tolist(),
            "tokens": self.tokens.tolist(),
            "run_lengths": np.trim_zeros(self.run_lengths, "b").tolist() or [0],
        }

    @classmethod
    def from_counts(cls, counts: Mapping[str, Any]) -> "Statistics":
        """What ``counts`` wrote."""
        arrays = {name: np.asarray(counts[name], dtype=np.int64) for name in ("frames", "tokens", "run_lengths")}
        return cls(int(counts["utterances"]), **arrays)

    def to_json(self) -> str:
        """Figures for people and counts for adding, as one JSON object."""
        return json.dumps({"figures": self.figures(), "counts": self.counts()}, indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> "Statistics":
        """The statistics that ``to_json`` wrote."""
        try:
            return cls.from_counts(json.loads(path.read_text(encoding="utf-8"))["counts"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not the JSON that spintok stats writes ({error!r})") from None


def _grown(counts: Counts, size: int) -> Counts:
    return np.pad(counts, (0, size - counts.size))


def _tail_share(share: NDArray[np.float64]) -> float:
    """The Lorenz curve at TAIL, straight between codewords, so that it is exact for any K."""
    curve = np.concatenate([[0.0], np.cumsum(np.sort(share))])
    return float(np.interp(TAIL * share.size, np.arange(share.size + 1), curve))


def _gini(share: NDArray[np.float64]) -> float:
    size = share.size
    rank = np.arange(1, size + 1)
    return float(((2 * rank - size - 1) * np.sort(share)).sum() / size)


def _quantile(histogram: Counts, quantile: float) -> int:
    """The smallest length that at least this share of the runs does not pass; 0 without runs."""
    total = histogram.sum()
    return int(np.searchsorted(np.cumsum(histogram), math.ceil(quantile * total))) if total else 0
