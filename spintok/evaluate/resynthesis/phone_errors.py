"""Which phones go wrong: those of the words that a recogniser hears, aligned with those of the text.

The phones are ARPAbet, by the first pronunciation that the recogniser's dictionary has for each word, so a word heard
rightly has no error. A language model chooses the words, so errors come in groups; compare with those of recordings.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from spintok._files import require

__all__ = ["PhoneErrors", "aligned"]


@dataclass(frozen=True)
class PhoneErrors:
    """Aligned phones, counted; the counts of utterances add up.

    Attributes:
        pairs: how often each phone of the text was heard as each phone; "" as heard: not at all, "" of the text: where
            the text has none.
    """

    pairs: Counter[tuple[str, str]]

    @classmethod
    def of(cls, reference: Sequence[str], heard: Sequence[str]) -> "PhoneErrors":
        """The errors of one utterance."""
        return cls(Counter(aligned(reference, heard)))

    @classmethod
    def summed(cls, parts: Iterable["PhoneErrors"]) -> "PhoneErrors":
        """The errors of many utterances."""
        return cls(sum((part.pairs for part in parts), Counter()))

    @property
    def edits(self) -> int:
        """Phones that are replaced, missing or inserted: the edit distance."""
        return sum(count for (wanted, heard), count in self.pairs.items() if wanted != heard)

    def counts(self, phones: Iterable[str] | None = None) -> tuple[int, int]:
        """How many of these phones of the text, by default of all, are replaced or missing, and how many there are."""
        chosen = None if phones is None else frozenset(phones)
        mine = {pair: count for pair, count in self.pairs.items() if pair[0] and (chosen is None or pair[0] in chosen)}
        return sum(count for (wanted, heard), count in mine.items() if wanted != heard), sum(mine.values())

    def table(self) -> dict[str, Any]:
        """By phone of the text, how many there are, how many are wrong, and what was heard instead, most often first.

        Plain values that JSON holds; "" is as in ``pairs``.
        """
        found: dict[str, Any] = {}
        for phone in sorted({wanted for wanted, _ in self.pairs}):
            instead = {heard: count for (wanted, heard), count in self.pairs.items() if wanted == phone != heard}
            total = sum(count for (wanted, _), count in self.pairs.items() if wanted == phone)
            wrong = dict(sorted(instead.items(), key=lambda item: (-item[1], item[0])))
            found[phone] = {"count": total, "wrong": sum(wrong.values()), "heard_as": wrong}
        return found


def aligned(reference: Sequence[str], heard: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs (phone of the reference, phone heard) of an alignment with the fewest edits; "" where there is none.

    Raises ``ValueError`` without rapidfuzz.
    """
    levenshtein = require("rapidfuzz.distance", extra="evaluate", purpose="an edit distance").Levenshtein
    pairs: list[tuple[str, str]] = []
    for step in levenshtein.opcodes(list(reference), list(heard)):
        mine, other = reference[step.src_start : step.src_end], heard[step.dest_start : step.dest_end]
        match step.tag:
            case "delete":
                pairs += [(phone, "") for phone in mine]
            case "insert":
                pairs += [("", phone) for phone in other]
            case _:
                pairs += zip(mine, other, strict=True)
    return pairs
