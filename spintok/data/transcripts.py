"""What is said in each utterance, as symbols: characters, or phonemes by way of a lexicon."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spintok.data.manifest import Utterance

__all__ = ["TranscriptError", "Transcripts", "read_lexicon", "read_transcripts"]

BLANK = "<blank>"
_NOT_LETTERS = re.compile(r"[^\w' ]|[\d_]")


class TranscriptError(ValueError):
    """Transcripts or a lexicon that cannot be used; the message names the file, the line and the cause."""


@dataclass(frozen=True)
class Transcripts:
    """Symbols of utterances.

    Attributes:
        symbols: their names, CTC's blank first.
        targets: the numbers of the symbols of each utterance by its place in the list; None where unknown.
        unknown_words: words that the lexicon lacks, sorted; utterances with such a word have no target.
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
    ) -> "Transcripts":
        """Characters in lower case, words parted by ``|``; with a lexicon, the phonemes of the words.

        Raises ``TranscriptError`` when no utterance has a usable transcript.
        """
        spelt: list[list[str] | None] = []
        unknown: set[str] = set()
        for utterance in utterances:
            words = _words(texts.get(utterance.key, ""))
            if lexicon is None:
                spelt.append(list("|".join(words)) or None)
                continue
            lacking = {word for word in words if word not in lexicon}
            unknown |= lacking
            spelt.append(None if lacking else [phoneme for word in words for phoneme in lexicon[word]] or None)
        names = sorted({symbol for symbols in spelt if symbols for symbol in symbols})
        if not names:
            lacks = f", and the lexicon lacks such words as {sorted(unknown)[0]!r}" if unknown else ""
            raise TranscriptError(f"none of the {len(utterances)} utterances has a usable transcript{lacks}")
        number = {name: i for i, name in enumerate(names, start=1)}
        targets = tuple(None if symbols is None else tuple(number[s] for s in symbols) for symbols in spelt)
        return cls((BLANK, *names), targets, tuple(sorted(unknown)))


def read_transcripts(path: Path) -> dict[str, str]:
    """Text by utterance: JSON lines with ``id`` (or ``key``) and ``text``, or Kaldi's ``KEY WORD WORD ...``.

    Lines of JSON without text are left out. Raises ``TranscriptError``.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(_lines(path), start=1):
        if path.suffix.lower() not in (".jsonl", ".json"):
            key, _, text = line.strip().partition(" ")
            found[key] = text
            continue
        try:
            record = json.loads(line)
            key = record.get("id", record.get("key"))
        except (json.JSONDecodeError, AttributeError):
            raise TranscriptError(f"{path}:{number}: not a JSON object on one line") from None
        if key is not None and isinstance(record.get("text"), str):
            found[str(key)] = record["text"]
    if not found:
        raise TranscriptError(f"{path}: holds no transcripts; a line of JSON has the fields id and text")
    return found


def read_lexicon(path: Path) -> dict[str, tuple[str, ...]]:
    """Phonemes by word in lower case: a word and its phonemes on each line, the first pronunciation of each counts.

    Stress digits go: ``AH0`` is ``AH``. Raises ``TranscriptError``.
    """
    found: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(_lines(path), start=1):
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


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise TranscriptError(f"{path}: no such file") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise TranscriptError(f"{path}: not a text file in UTF-8") from None
