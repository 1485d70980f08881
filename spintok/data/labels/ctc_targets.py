"""Transcripts as the symbols that CTC predicts: characters, or phonemes from a lexicon."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spintok.data.labels.transcripts import TranscriptError
from spintok.data.manifest import Utterance

__all__ = ["CtcTargets", "read_lexicon"]

BLANK = "<blank>"
_NOT_LETTERS = re.compile(r"[^\w' ]|[\d_]")


@dataclass(frozen=True)
class CtcTargets:
    """The symbols of a list of utterances.

    Attributes:
        symbols: all symbols, CTC's blank first.
        targets: the indices of the symbols of each utterance; None if it has no usable transcript.
        unknown_words: words that are not in the lexicon, sorted. Utterances with such a word have no target, unless
            their pronunciation is guessed.
    """

    symbols: tuple[str, ...]
    targets: tuple[tuple[int, ...] | None, ...]
    unknown_words: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        utterances: Sequence[Utterance],
        texts: Mapping[str, str],
        lexicon: Mapping[str, Sequence[str]] | None = None,
        guess: Callable[[str], Sequence[str]] | None = None,
    ) -> "CtcTargets":
        """Characters in lower case with ``|`` between words, or with a lexicon the phonemes of the words.

        Args:
            utterances: the utterances, in the order of ``targets``.
            texts: the texts by utterance key.
            lexicon: phonemes by word in lower case.
            guess: returns the phonemes of a word that is not in the lexicon; without it such utterances have no target.

        Raises:
            TranscriptError: no utterance has a usable transcript.
        """
        spelt: list[list[str] | None] = []
        unknown: set[str] = set()
        for utterance in utterances:
            words = _words(texts.get(utterance.key, ""))
            if lexicon is None:
                spelt.append(list("|".join(words)) or None)
                continue
            missing = {word for word in words if word not in lexicon}
            unknown |= missing
            if missing and guess is None:
                spelt.append(None)
                continue
            guessed = {word: guess(word) for word in missing} if guess is not None else {}
            pronounced = [guessed[word] if word in guessed else lexicon[word] for word in words]
            spelt.append([phoneme for phonemes in pronounced for phoneme in phonemes] or None)
        names = sorted({symbol for symbols in spelt if symbols for symbol in symbols})
        if not names:
            why = f"; the lexicon has no such words as {sorted(unknown)[0]!r}" if unknown else ""
            raise TranscriptError(f"none of the {len(utterances)} utterances has a usable transcript{why}")
        number = {name: i for i, name in enumerate(names, start=1)}
        targets = tuple(None if symbols is None else tuple(number[s] for s in symbols) for symbols in spelt)
        return cls((BLANK, *names), targets, tuple(sorted(unknown)))


def read_lexicon(path: Path) -> dict[str, tuple[str, ...]]:
    """Phonemes by word in lower case, from lines ``WORD PHONEME PHONEME ...``.

    Only the first pronunciation of a word is kept, without stress digits: ``AH0`` becomes ``AH``.
    Raises ``TranscriptError``.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise TranscriptError(f"{path}: no such file") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise TranscriptError(f"{path}: not a text file in UTF-8") from None
    found: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        word, *phonemes = line.split()
        if not phonemes:
            raise TranscriptError(f"{path}:{number}: expected 'WORD PHONEME PHONEME ...', got {line!r}")
        found.setdefault(word.lower(), tuple(phoneme.rstrip("0123456789") for phoneme in phonemes))
    if not found:
        raise TranscriptError(f"{path}: the lexicon is empty")
    return found


def _words(text: str) -> list[str]:
    """Words of letters and apostrophes, in lower case."""
    return _NOT_LETTERS.sub(" ", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")).split()
