"""An n-gram language model of codes: interpolated Kneser-Ney.

Chen and Goodman 1998, "An Empirical Study of Smoothing Techniques for Language Modeling", sections 2.7 and 4.1:
the highest order counts occurrences, and lower orders count the distinct codes that precede an n-gram. Each order is
discounted by D = n1 / (n1 + 2 n2), where n1 and n2 n-grams occur once and twice, and interpolated with the order below;
the lowest order is interpolated with the uniform distribution over the codebook. Every code therefore has a probability
after any context, and the probabilities sum to one.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

__all__ = ["NgramModel"]

_START = -1
Context = tuple[int, ...]


class NgramModel:
    """P(code | the ``order`` - 1 codes before it), from sequences of codes in [0, ``vocabulary``).

    Sequences are padded with ``order`` - 1 start symbols, which are never predicted.

    Raises:
        ValueError: an order or vocabulary below 1, or a code out of range.
    """

    def __init__(self, sequences: Iterable[Sequence[int]], order: int, vocabulary: int) -> None:
        if order < 1 or vocabulary < 1:
            raise ValueError(f"order and vocabulary must be at least 1, got {order} and {vocabulary}")
        self.order = order
        self.vocabulary = vocabulary
        grams: Counter[Context] = Counter()
        for sequence in sequences:
            if len(sequence) and not 0 <= min(sequence) <= max(sequence) < vocabulary:
                raise ValueError(f"codes must lie in [0, {vocabulary}), got {min(sequence)} to {max(sequence)}")
            padded = (_START,) * (order - 1) + tuple(sequence)
            grams.update(padded[i : i + order] for i in range(len(sequence)))
        # From the highest order down: counts, and for each context their sum and the number of distinct codes after it.
        self._counts: list[Counter[Context]] = []
        self._totals: list[dict[Context, int]] = []
        self._followers: list[dict[Context, int]] = []
        self._discounts: list[float] = []
        for _ in range(order):
            totals: defaultdict[Context, int] = defaultdict(int)
            followers: defaultdict[Context, int] = defaultdict(int)
            for gram, count in grams.items():
                totals[gram[:-1]] += count
                followers[gram[:-1]] += 1
            self._counts.append(grams)
            self._totals.append(dict(totals))
            self._followers.append(dict(followers))
            self._discounts.append(_discount(grams))
            grams = Counter(gram[1:] for gram in grams)

    def probability(self, code: int, context: Sequence[int] = ()) -> float:
        """P(code | context). Only the last ``order`` - 1 codes count; a shorter context is the start of a sequence."""
        wanted = self.order - 1
        before = ((_START,) * wanted + tuple(context))[len(context) :] if wanted else ()
        found = 1.0 / self.vocabulary
        for level in range(self.order - 1, -1, -1):
            history = before[level:]
            total = self._totals[level].get(history, 0)
            if total:
                discount = self._discounts[level]
                count = self._counts[level].get((*history, code), 0)
                spare = discount * self._followers[level][history]
                found = (max(count - discount, 0.0) + spare * found) / total
        return found

    def bits(self, sequence: Sequence[int]) -> float:
        """- log2 of the probability of a sequence; 0 for an empty one."""
        wanted = self.order - 1
        padded = (_START,) * wanted + tuple(sequence)
        return -math.fsum(
            math.log2(self.probability(padded[i + wanted], padded[i : i + wanted])) for i in range(len(sequence))
        )


def _discount(grams: Counter[Context]) -> float:
    """D of one order; a half if no n-gram occurs once or none occurs twice, because D is then 0 or 1."""
    once = sum(1 for count in grams.values() if count == 1)
    twice = sum(1 for count in grams.values() if count == 2)
    return once / (once + 2 * twice) if once and twice else 0.5
