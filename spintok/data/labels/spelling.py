"""Guess the pronunciation of words that a lexicon does not contain, from the spelling of those that it contains.

Each letter of a word is aligned with none, one or two phonemes by expectation maximization, as in the joint-sequence
models of Bisani and Ney 2008 ("Joint-sequence models for grapheme-to-phoneme conversion"), with single letters. A new
word gets, letter by letter, the phonemes that the aligned words have most often for this letter between the same
neighbours, in the longest context that occurs.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

__all__ = ["Spelling"]

Phonemes = tuple[str, ...]

_MOST = 2
"""Phonemes that one letter can stand for: "x" is K S, and letters of "sh" are SH and nothing."""
_ROUNDS = 5
_WORDS = 5_000
"""Words to learn from, evenly from the lexicon; more take longer and improve little."""
_CONTEXTS = ((3, 3), (2, 2), (1, 2), (2, 1), (1, 1), (0, 1), (1, 0), (0, 0))
"""Letters before and after the letter, from the most specific context to none."""


class Spelling:
    """Letter-to-phoneme rules of a lexicon.

    Args:
        lexicon: phonemes by word in lower case. Words with more than two phonemes per letter are ignored.
    """

    def __init__(self, lexicon: Mapping[str, Sequence[str]]) -> None:
        pairs = sorted((word, tuple(phonemes)) for word, phonemes in lexicon.items() if phonemes)
        pairs = [(word, phonemes) for word, phonemes in pairs if len(phonemes) <= _MOST * len(word)]
        pairs = pairs[:: -(-len(pairs) // _WORDS) or 1]
        probabilities = _learn(pairs)
        self._rules: defaultdict[tuple[int, str], Counter[Phonemes]] = defaultdict(Counter)
        for word, phonemes in pairs:
            for place, chunk in enumerate(_best_alignment(word, phonemes, probabilities)):
                for number, context in enumerate(_contexts(word, place)):
                    self._rules[number, context][chunk] += 1

    def pronounce(self, word: str) -> Phonemes:
        """The phonemes of a word in lower case; letters that no word of the lexicon has stand for nothing."""
        found: list[str] = []
        for place in range(len(word)):
            for number, context in enumerate(_contexts(word, place)):
                if counts := self._rules.get((number, context)):
                    # Of equally frequent ones the alphabetically first, so that the order of words does not matter.
                    best = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
                    found += best[0][0]
                    break
        return tuple(found)


def _contexts(word: str, place: int) -> list[str]:
    padded = f"^^^{word}$$$"
    place += 3
    # The letter itself is marked by its case, which tells "a" before "b" from "b" after "a".
    return [
        padded[place - before : place] + padded[place].upper() + padded[place + 1 : place + 1 + after]
        for before, after in _CONTEXTS
    ]


def _learn(pairs: Sequence[tuple[str, Phonemes]]) -> dict[tuple[str, Phonemes], float]:
    """P(chunk | letter) by expectation maximization over all monotone alignments."""
    probabilities: dict[tuple[str, Phonemes], float] = {}
    for _ in range(_ROUNDS):
        counts: defaultdict[tuple[str, Phonemes], float] = defaultdict(float)
        for word, phonemes in pairs:
            _add_expected(counts, word, phonemes, probabilities)
        totals: defaultdict[str, float] = defaultdict(float)
        for (letter, _), count in counts.items():
            totals[letter] += count
        probabilities = {(letter, chunk): count / totals[letter] for (letter, chunk), count in counts.items()}
    return probabilities


def _add_expected(
    counts: defaultdict[tuple[str, Phonemes], float],
    word: str,
    phonemes: Phonemes,
    probabilities: Mapping[tuple[str, Phonemes], float],
) -> None:
    """Add the expected number of times that each letter of the word stands for each chunk of its phonemes."""
    letters, length = len(word), len(phonemes)
    forward = [[0.0] * (length + 1) for _ in range(letters + 1)]
    backward = [[0.0] * (length + 1) for _ in range(letters + 1)]
    forward[0][0] = backward[letters][length] = 1.0
    edges = []
    for i, letter in enumerate(word):
        for j in range(length + 1):
            for k in range(min(_MOST, length - j) + 1):
                chunk = phonemes[j : j + k]
                # Before the first round all chunks are equally likely.
                probability = probabilities.get((letter, chunk), 0.0) if probabilities else 1.0
                if probability:
                    edges.append((i, j, k, letter, chunk, probability))
                    forward[i + 1][j + k] += forward[i][j] * probability
    for i, j, k, _, _, probability in reversed(edges):
        backward[i][j] += backward[i + 1][j + k] * probability
    if total := forward[letters][length]:
        for i, j, k, letter, chunk, probability in edges:
            counts[letter, chunk] += forward[i][j] * probability * backward[i + 1][j + k] / total


def _best_alignment(
    word: str, phonemes: Phonemes, probabilities: Mapping[tuple[str, Phonemes], float]
) -> list[Phonemes]:
    """The chunk of each letter in the most likely alignment."""
    length = len(phonemes)
    best: list[dict[int, tuple[float, int]]] = [{0: (1.0, 0)}]
    for letter in word:
        reached: dict[int, tuple[float, int]] = {}
        for j, (likelihood, _) in best[-1].items():
            for k in range(min(_MOST, length - j) + 1):
                extended = likelihood * probabilities.get((letter, phonemes[j : j + k]), 0.0)
                if extended > reached.get(j + k, (0.0, 0))[0]:
                    reached[j + k] = extended, k
        best.append(reached)
    if length not in best[-1]:
        return []
    chunks: list[Phonemes] = []
    for row in reversed(best[1:]):
        taken = row[length][1]
        chunks.append(phonemes[length - taken : length])
        length -= taken
    return chunks[::-1]
