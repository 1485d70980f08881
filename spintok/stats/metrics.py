"""Figures of tokens from their counts: rates, the three bitrates, usage and imbalance of codewords, runs, drift.

Figures and their names follow Wang et al. 2024, "Comparing Discrete and Continuous Space LLMs for Speech
Recognition", arXiv 2411.08742, and the field.
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spintok.frames import FRAME_RATE
from spintok.stats.joint_counts import PairCounts, entropy

if TYPE_CHECKING:
    from spintok.stats.counts import Statistics

__all__ = ["dependence", "drift", "figures", "jensen_shannon", "zipf_slope"]

Counts = NDArray[np.int64]

TAIL = 0.2
"""The share of codewords, rarest first, whose occurrences the tail share counts."""


def figures(statistics: "Statistics", silence: Iterable[int] | None = None) -> dict[str, Any]:
    """Every figure by name.

    Rates are a second of framed speech. ``frame_bitrate`` = log2 K x frame rate; ``token_bitrate`` = log2 K x token
    rate; ``entropy_bitrate`` = entropy x token rate. ``entropy`` (bits) and what follows from it are over tokens,
    after de-duplication. ``conditional_entropy`` = H(token | the token before it), over bigrams within utterances,
    and ``conditional_entropy_bitrate`` = that x token rate: what a bigram model would need, if it knew the counts.
    ``tail_share``: occurrences held by the rarest 20 % of codewords, 0.2 when usage is even. ``imbalance`` = 1 -
    entropy / log2 K. ``gini``: 0 when even, towards 1 when one code has all. ``zipf_slope``: see ``zipf_slope``.
    ``run_length_shares``: the share of the runs that last 1, 2, ... frames. ``token_rate_over_time``: of each second
    from the start of an utterance, None where no utterance lasted so long.

    Args:
        statistics: the counts.
        silence: the codes that stand for silence; ``silence_share`` is the share of the frames that have one of
            them, None when they are not given: tokens alone do not tell what they stand for. ``spintok evaluate``
            lists the codes that mean silence when it is given alignments.
    """
    size, frames, tokens = statistics.codebook_size, int(statistics.frames.sum()), int(statistics.tokens.sum())
    seconds = frames / FRAME_RATE
    bits = math.log2(size)
    share = statistics.tokens / max(tokens, 1)
    surprise = entropy(statistics.tokens)
    conditional = statistics.bigrams.conditional_entropy()
    token_rate = tokens / seconds if frames else 0.0
    order = np.argsort(-statistics.tokens, kind="stable")
    runs = statistics.run_lengths
    return {
        "utterances": statistics.utterances,
        "hours": seconds / 3600,
        "frames": frames,
        "tokens": tokens,
        "codebook_size": size,
        "frame_rate": float(FRAME_RATE),
        "token_rate": token_rate,
        "frame_bitrate": bits * FRAME_RATE,
        "token_bitrate": bits * token_rate,
        "entropy_bitrate": surprise * token_rate,
        "entropy": surprise,
        "conditional_entropy": conditional,
        "conditional_entropy_bitrate": conditional * token_rate,
        "perplexity": 2.0**surprise,
        "active_codewords": int(np.count_nonzero(statistics.tokens)),
        "dead_codewords": int(size - np.count_nonzero(statistics.tokens)),
        "dead_codeword_ids": np.flatnonzero(statistics.tokens == 0).tolist(),
        "tail_share": _tail_share(share),
        "gini": _gini(share),
        "imbalance": 1 - surprise / bits if size > 1 and tokens else 0.0,
        "zipf_slope": zipf_slope(statistics.tokens),
        "run_length_mean": frames / tokens if tokens else 0.0,
        "run_length_median": _quantile(runs, 0.5),
        "run_length_p90": _quantile(runs, 0.9),
        "run_length_max": int(np.flatnonzero(runs).max(initial=0)),
        "run_length_shares": {str(n): int(runs[n]) / tokens for n in np.flatnonzero(runs).tolist()},
        "silence_share": _silence_share(statistics.frames, silence),
        "token_rate_over_time": _rates_over_time(statistics.over_time),
        "speakers": len(statistics.speakers),
        "token_rate_by_speaker": {
            name: made * FRAME_RATE / heard if heard else 0.0
            for name, (_, heard, made) in sorted(statistics.speakers.items())
        },
        "most_used": [[int(code), int(statistics.tokens[code])] for code in order[:10]],
        "least_used": [[int(code), int(statistics.tokens[code])] for code in order[::-1][:10]],
    }


def zipf_slope(counts: ArrayLike) -> float:
    """The slope of the straight line through log count over log rank, least squares over codewords that occur.

    -1 for Zipf's law, 0 when usage is even or fewer than two codewords occur.
    """
    present = np.sort(np.asarray(counts, dtype=np.float64))[::-1]
    present = present[present > 0]
    if present.size < 2:
        return 0.0
    x = np.log(np.arange(1, present.size + 1))
    x -= x.mean()
    return float((x * np.log(present)).sum() / (x * x).sum()) + 0.0


def jensen_shannon(first: ArrayLike, second: ArrayLike) -> float:
    """The Jensen-Shannon divergence in bits of the distributions of two arrays of counts of one shape.

    H((p + q) / 2) - (H(p) + H(q)) / 2, Lin 1991, "Divergence measures based on the Shannon entropy": 0 when they are
    equal, 1 when nothing occurs in both. Raises ``ValueError`` when either is without counts.
    """
    p, q = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if p.shape != q.shape:
        raise ValueError(f"distributions over {p.shape} and {q.shape} outcomes cannot be compared")
    if p.sum() <= 0 or q.sum() <= 0:
        raise ValueError("there is no drift from or to nothing: one of the two holds no tokens")
    p, q = p / p.sum(), q / q.sum()
    return min(1.0, max(0.0, entropy(p + q) - (entropy(p) + entropy(q)) / 2))


def drift(first: "Statistics", second: "Statistics") -> dict[str, float]:
    """How far the tokens of two corpora lie apart: Jensen-Shannon divergence in bits of tokens and of bigrams.

    Raises ``ValueError`` for codebooks of different sizes, or without tokens. ``bigram_drift`` is 0 when no
    utterance of either corpus has two tokens.
    """
    if first.codebook_size != second.codebook_size:
        raise ValueError(f"codebooks of {first.codebook_size} and {second.codebook_size} codes cannot be compared")
    both = first.bigrams + second.bigrams
    counts = [np.zeros(both.keys.size), np.zeros(both.keys.size)]
    for array, bigrams in zip(counts, (first.bigrams, second.bigrams), strict=True):
        array[np.searchsorted(both.keys, bigrams.keys)] = bigrams.counts
    return {
        "token_drift": jensen_shannon(first.tokens, second.tokens),
        "bigram_drift": jensen_shannon(*counts) if all(array.sum() for array in counts) else 0.0,
        "token_rate_change": second.figures()["token_rate"] - first.figures()["token_rate"],
    }


def dependence(pairs: PairCounts) -> dict[str, float]:
    """What the codes of two codebooks tell of each other, from how often each pair shares a frame.

    ``mutual_information`` in bits, and the share of each codebook's entropy that it is: ``primary_known`` = 1 when
    the auxiliary code gives the primary one away. 0 where that entropy is 0.
    """
    information = pairs.mutual_information()
    known = [
        information / h if (h := entropy(counts)) > 0 else 0.0 for counts in (pairs.row_counts, pairs.column_counts)
    ]
    return {"mutual_information": information, "primary_known": known[0], "auxiliary_known": known[1]}


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


def _silence_share(frames: Counts, silence: Iterable[int] | None) -> float | None:
    if silence is None:
        return None
    codes = sorted(set(silence))
    if codes and not 0 <= codes[0] <= codes[-1] < frames.size:
        raise ValueError(f"codes of silence must lie in [0, {frames.size}), got {codes[0]} to {codes[-1]}")
    return int(frames[codes].sum()) / max(int(frames.sum()), 1)


def _rates_over_time(over_time: Counts) -> list[float | None]:
    seconds = np.trim_zeros(over_time[0], "b").size
    return [made * FRAME_RATE / heard if heard else None for heard, made in over_time[:, :seconds].T.tolist()]
