"""Metrics of tokens from their counts: rates, the three bitrates, usage and imbalance of codewords, runs, drift.

Names and definitions follow Wang et al. 2024, "Comparing Discrete and Continuous Space LLMs for Speech Recognition",
arXiv 2411.08742.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spintok.stats.counts import TokenCounts
from spintok.stats.entropy import entropy, jensen_shannon
from spintok.stats.joint_counts import JointCounts

__all__ = ["TAIL", "dependence", "drift", "metrics", "zipf_slope"]

Counts = NDArray[np.int64]

TAIL = 0.2
"""The share of codewords, rarest first, that ``tail_share`` counts."""


def metrics(counts: TokenCounts, silence: Iterable[int] | None = None) -> dict[str, Any]:
    """All metrics by name.

    Rates are per second of framed speech. ``frame_bitrate`` = log2 K x frame rate; ``token_bitrate`` = log2 K x token
    rate; ``entropy_bitrate`` = entropy x token rate. ``entropy`` (bits) and what is derived from it are over tokens,
    after de-duplication. ``conditional_entropy`` = H(token | previous token), over bigrams within utterances, and
    ``conditional_entropy_bitrate`` = that x token rate: the bitrate of an ideal bigram model of these counts.
    ``tail_share``: the share of occurrences of the rarest 20 % of codewords, 0.2 for uniform usage. ``imbalance`` =
    1 - entropy / log2 K. ``gini``: 0 for uniform usage, towards 1 when one code has all. ``zipf_slope``: see
    ``zipf_slope``. ``run_length_shares``: the share of runs of 1, 2, ... frames. ``token_rate_over_time``: in each
    second from the start of an utterance, None where no utterance is that long.

    Args:
        counts: the counts of the tokens.
        silence: the codes that represent silence. ``silence_share`` is the share of frames with one of them, and None
            without ``silence``: tokens alone do not show which codes are silence; ``spintok evaluate`` lists them when
            it is given alignments.

    Raises:
        ValueError: a code of silence is not in the codebook.
    """
    size, frames, tokens = counts.codebook_size, int(counts.frames.sum()), int(counts.tokens.sum())
    rate = counts.frame_rate
    seconds = frames / rate
    bits = math.log2(size)
    share = counts.tokens / max(tokens, 1)
    uncertainty = entropy(counts.tokens)
    conditional = counts.bigrams.conditional_entropy()
    token_rate = _token_rate(counts)
    order = np.argsort(-counts.tokens, kind="stable")
    runs = counts.run_lengths
    return {
        "utterances": counts.utterances,
        "hours": seconds / 3600,
        "frames": frames,
        "tokens": tokens,
        "codebook_size": size,
        "frame_rate": float(rate),
        "token_rate": token_rate,
        "frame_bitrate": bits * rate,
        "token_bitrate": bits * token_rate,
        "entropy_bitrate": uncertainty * token_rate,
        "entropy": uncertainty,
        "conditional_entropy": conditional,
        "conditional_entropy_bitrate": conditional * token_rate,
        "perplexity": 2.0**uncertainty,
        "active_codewords": int(np.count_nonzero(counts.tokens)),
        "dead_codewords": int(size - np.count_nonzero(counts.tokens)),
        "dead_codeword_ids": np.flatnonzero(counts.tokens == 0).tolist(),
        "tail_share": _tail_share(share),
        "gini": _gini(share),
        "imbalance": 1 - uncertainty / bits if size > 1 and tokens else 0.0,
        "zipf_slope": zipf_slope(counts.tokens),
        "run_length_mean": frames / tokens if tokens else 0.0,
        "run_length_median": _quantile(runs, 0.5),
        "run_length_p90": _quantile(runs, 0.9),
        "run_length_max": int(np.flatnonzero(runs).max(initial=0)),
        "run_length_shares": {str(n): int(runs[n]) / tokens for n in np.flatnonzero(runs).tolist()},
        "silence_share": _silence_share(counts.frames, silence),
        "token_rate_over_time": _rates_over_time(counts.over_time, rate),
        "speakers": len(counts.speakers),
        "token_rate_by_speaker": {
            name: begun * rate / seen if seen else 0.0 for name, (_, seen, begun) in sorted(counts.speakers.items())
        },
        "most_used": [[int(code), int(counts.tokens[code])] for code in order[:10]],
        "least_used": [[int(code), int(counts.tokens[code])] for code in order[::-1][:10]],
    }


def zipf_slope(counts: ArrayLike) -> float:
    """The slope of the least-squares line through log count over log rank of the codewords that occur.

    -1 for Zipf's law, 0 for uniform usage or fewer than two codewords.
    """
    present = np.sort(np.asarray(counts, dtype=np.float64))[::-1]
    present = present[present > 0]
    if present.size < 2:
        return 0.0
    x = np.log(np.arange(1, present.size + 1))
    x -= x.mean()
    return float((x * np.log(present)).sum() / (x * x).sum()) + 0.0


def drift(first: TokenCounts, second: TokenCounts) -> dict[str, float]:
    """How far the tokens of two corpora differ: Jensen-Shannon divergence in bits of tokens and of bigrams.

    ``token_rate_change`` is the second's token rate minus the first's. ``bigram_drift`` is 0 when either corpus has no
    bigrams.

    Raises:
        ValueError: codebooks of different sizes, or a corpus without tokens.
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
        "token_rate_change": _token_rate(second) - _token_rate(first),
    }


def dependence(joint: JointCounts) -> dict[str, float]:
    """How much the codes of two codebooks at one frame tell about each other.

    ``mutual_information`` in bits, and its share of each codebook's entropy: ``primary_known`` is 1 when the auxiliary
    code determines the primary one. A share is 0 where the entropy is 0.
    """
    information = joint.mutual_information()
    known = [
        information / h if (h := entropy(counts)) > 0 else 0.0 for counts in (joint.row_counts, joint.column_counts)
    ]
    return {"mutual_information": information, "primary_known": known[0], "auxiliary_known": known[1]}


def _token_rate(counts: TokenCounts) -> float:
    """Tokens per second."""
    frames = int(counts.frames.sum())
    return int(counts.tokens.sum()) / (frames / counts.frame_rate) if frames else 0.0


def _tail_share(share: NDArray[np.float64]) -> float:
    """The Lorenz curve at TAIL, linear between codewords, so that it is exact for any K."""
    curve = np.concatenate([[0.0], np.cumsum(np.sort(share))])
    return float(np.interp(TAIL * share.size, np.arange(share.size + 1), curve))


def _gini(share: NDArray[np.float64]) -> float:
    size = share.size
    rank = np.arange(1, size + 1)
    return float(((2 * rank - size - 1) * np.sort(share)).sum() / size)


def _quantile(histogram: Counts, quantile: float) -> int:
    """The smallest length that at least this share of the runs does not exceed; 0 without runs."""
    total = histogram.sum()
    return int(np.searchsorted(np.cumsum(histogram), math.ceil(quantile * total))) if total else 0


def _silence_share(frames: Counts, silence: Iterable[int] | None) -> float | None:
    if silence is None:
        return None
    codes = sorted(set(silence))
    if codes and not 0 <= codes[0] <= codes[-1] < frames.size:
        raise ValueError(f"codes of silence must lie in [0, {frames.size}), got {codes[0]} to {codes[-1]}")
    return int(frames[codes].sum()) / max(int(frames.sum()), 1)


def _rates_over_time(over_time: Counts, rate: int) -> list[float | None]:
    seconds = np.trim_zeros(over_time[0], "b").size
    return [begun * rate / seen if seen else None for seen, begun in over_time[:, :seconds].T.tolist()]
