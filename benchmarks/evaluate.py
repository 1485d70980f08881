"""Time of the metrics of aligned speech, given its tokens: an hour of speech on two cores.

    python benchmarks/evaluate.py [--hours 1] [--codebook-size 500] [--rounds 3]

The speech is synthetic: phones of random lengths, and codes that follow them in seven of ten frames. Each metric is
first checked against the library that people would use instead, and both are then timed in turn. Times are the minimum
over the rounds, in seconds of wall clock. Libraries: scikit-learn (contingency table, mutual information), mir_eval
(boundaries), and a loop over code pairs with a Counter (bigrams).
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from spintok.data.labels.alignments import Interval, frame_intervals
from spintok.evaluate.bootstrap import replicates
from spintok.evaluate.boundaries import boundary_counts
from spintok.evaluate.phones import PhoneScore
from spintok.evaluate.predictability import predictability
from spintok.frames import FRAME_RATE, frame_center_seconds
from spintok.stats import TokenCounts, metrics
from spintok.tokens import Tokens

SECONDS = 6
PHONES = 40


def speech(hours: float, size: int) -> tuple[dict[str, Tokens], dict[str, list[Interval]]]:
    """Utterances of six seconds with a phone every 90 ms on average."""
    rng = np.random.default_rng(0)
    tokens, phones = {}, {}
    for number in range(round(hours * 3600 / SECONDS)):
        ends = np.cumsum(rng.exponential(0.09, 200) + 0.02).round(2)
        ends = ends[ends < SECONDS]
        labels = rng.integers(PHONES, size=ends.size)
        key = f"u{number}"
        starts = [0.0, *ends[:-1]]
        phones[key] = [Interval(f"p{p}", a, b) for p, a, b in zip(labels, starts, ends, strict=True)]
        of_frame = frame_intervals(phones[key], SECONDS * FRAME_RATE)
        wanted = labels[of_frame] * (size // PHONES) + rng.integers(max(size // PHONES, 1), size=of_frame.size)
        codes = np.where(rng.random(of_frame.size) < 0.7, wanted % size, rng.integers(size, size=of_frame.size))
        tokens[key] = Tokens(codes, size)
    return tokens, phones


def least(rounds: int, *functions: Callable[[], object]) -> list[float]:
    """The shortest wall-clock time of each function, called in turn."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for found, function in zip(times, functions, strict=True):
            started = time.perf_counter()
            function()
            found.append(time.perf_counter() - started)
    return [min(found) for found in times]


def sklearn_phones(tokens: dict[str, Tokens], phones: dict[str, list[Interval]]) -> dict[str, float]:
    """Purities and PNMI from scikit-learn, with the same labels of frames."""
    from sklearn.metrics import homogeneity_score
    from sklearn.metrics.cluster import contingency_matrix

    labels, codes = [], []
    for key, one in tokens.items():
        for frame in range(one.num_frames):
            center = frame_center_seconds(frame)
            label = next((i.label for i in phones[key] if i.start <= center < i.end), None)
            if label is not None:
                labels.append(label)
                codes.append(int(one.codes[frame]))
    table = contingency_matrix(labels, codes, sparse=True)
    total = table.sum()
    return {
        "phone_purity": table.max(axis=0).sum() / total,
        "phone_cluster_purity": table.max(axis=1).sum() / total,
        "pnmi": homogeneity_score(labels, codes),
    }


def mir_eval_boundaries(tokens: dict[str, Tokens], phones: dict[str, list[Interval]]) -> int:
    """The number of boundaries that mir_eval's bipartite matching pairs."""
    from mir_eval.util import match_events

    matched = 0
    for key, one in tokens.items():
        starts = (np.cumsum(one.durations) - one.durations)[1:]
        found = frame_center_seconds(0) + (starts - 0.5) / FRAME_RATE
        times = np.unique([t for _, a, b in phones[key] for t in (a, b)])
        inside = (times > frame_center_seconds(0)) & (times < frame_center_seconds(one.num_frames - 1))
        matched += len(match_events(times[inside], found, 0.02 + 1e-6))
    return matched


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--codebook-size", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    tokens, phones = speech(options.hours, options.codebook_size)
    spoken = [(one, None) for one in tokens.values()]
    frames = sum(one.num_frames for one in tokens.values())
    print(f"{frames / FRAME_RATE / 3600:.2f} h, {len(tokens)} utterances, {options.codebook_size} codewords\n")

    def bigrams() -> Counter[tuple[int, int]]:
        return Counter(pair for one in tokens.values() for pair in pairwise(one.units.tolist()))

    ours = PhoneScore(tokens, phones).values()
    for name, value in sklearn_phones(tokens, phones).items():
        assert abs(ours[name] - value) < 1e-9, (name, ours[name], value)
    matched = sum(boundary_counts(tokens[key], phones[key]).matched for key in tokens)
    assert matched == mir_eval_boundaries(tokens, phones)
    statistics = TokenCounts.collect(spoken, options.codebook_size)
    counted = bigrams()
    assert statistics.bigrams.keys.size == len(counted)
    assert int(statistics.bigrams.counts.sum()) == sum(counted.values())
    print("agreement: purities and PNMI with scikit-learn, boundaries with mir_eval, bigrams with a Counter\n")

    def all_phones() -> object:
        return PhoneScore(tokens, phones).values()

    def only_labels() -> object:
        return PhoneScore(tokens, phones, tolerance=None).values()

    def all_statistics() -> object:
        return metrics(TokenCounts.collect(spoken, options.codebook_size))

    rows = (
        ("purities, PNMI", only_labels, lambda: sklearn_phones(tokens, phones), "scikit-learn"),
        (
            "boundaries",
            lambda: [boundary_counts(tokens[key], phones[key]) for key in tokens],
            lambda: mir_eval_boundaries(tokens, phones),
            "mir_eval",
        ),
        ("statistics", all_statistics, bigrams, "a Counter of bigrams alone"),
    )
    for name, mine, theirs, who in rows:
        a, b = least(options.rounds, mine, theirs)
        print(f"{name:<28}{a:8.2f} s   {who} {b:.2f} s, {b / a:.1f} x")
    score = PhoneScore(tokens, phones)
    drawn, predicted = least(1, lambda: replicates(score, 1000), lambda: predictability(tokens))
    (whole,) = least(options.rounds, lambda: (all_phones(), all_statistics()))
    print(f"{'1000 bootstrap draws':<28}{drawn:8.2f} s")
    print(f"{'3-gram, five folds':<28}{predicted:8.2f} s")
    print(f"\nphone metrics and statistics: {whole:.2f} s; with bootstrap intervals {whole + drawn:.2f} s; bound: 60 s")


if __name__ == "__main__":
    main()
