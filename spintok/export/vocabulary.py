"""Where speech tokens stand among the ids of a language model: the offset map, saved as JSON beside its tokenizer.

From ``first_id`` on, without a gap: the codes of each codebook, then the durations 1, 2, ..., then the special
tokens. Everything below ``first_id`` is text.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spintok._files import atomic
from spintok.export.errors import ExportError

__all__ = ["PRIVATE_USE", "SPECIALS", "VOCABULARY_FILE", "Vocabulary", "private_use_character"]

VOCABULARY_FILE = "vocabulary.spintok.json"

PRIVATE_USE = "private-use"
"""The template that writes each code as one character."""

SPECIALS: Mapping[str, str] = {
    "begin_speech": "[SOS]",
    "end_speech": "[EOS]",
    "begin_text": "[SOT]",
    "end_text": "[EOT]",
    "asr": "[ASR]",
    "tts": "[TTS]",
    "text": "[Text]",
    "speech": "[Speech]",
    "silent_speech": "[SIL]",
    "silent_text": "[NOTEXT]",
    "delay": "[DELAY]",
}
"""Role to name. The first six as OmniFlatten writes them (arXiv 2410.17799), text and speech as SpiRit-LM does."""

FORMAT = 1


def private_use_character(number: int) -> str:
    """The ``number``-th character of Unicode's private-use areas, which no text has: 137,468 of them."""
    for first, count in ((0xE000, 6400), (0xF0000, 65534), (0x100000, 65534)):
        if number < count:
            return chr(first + number)
        number -= count
    raise ExportError("a private-use character a code: there are 137,468 and no more")


@dataclass(frozen=True)
class Vocabulary:
    """The ids of a language model's speech tokens, and how each is written.

    Attributes:
        tokenizer: the speech tokenizer's name.
        fingerprint: of the speech tokenizer; with a BPE over its units, the BPE's ``identity``.
        codebooks: K of each codebook by name.
        first_id: the id of code 0 of the first codebook; the ids below are text's.
        template: the text of a code, ``{}`` standing for its number, or ``"private-use"``.
        specials: role to text, in the order of their ids.
        durations: how many duration tokens there are, for 1, 2, ... frames; 0: none.
        duration_template: the text of a duration.
    """

    tokenizer: str
    fingerprint: str
    codebooks: Mapping[str, int]
    first_id: int = 0
    template: str = "<|s_{}|>"
    specials: Mapping[str, str] = field(default_factory=lambda: dict(SPECIALS))
    durations: int = 0
    duration_template: str = "<|d_{}|>"

    def __post_init__(self) -> None:
        for name in ("template", "duration_template"):
            text = getattr(self, name)
            if text.count("{}") != 1 and not (name == "template" and text == PRIVATE_USE):
                raise ExportError(f"{name} {text!r}: {{}} must stand in it once, where the number goes")
        unknown = set(self.specials) - set(SPECIALS)
        if unknown:
            raise ExportError(f"unknown special token {min(unknown)!r}: the roles are {', '.join(SPECIALS)}")
        if not self.codebooks or min(self.codebooks.values()) < 1 or self.durations < 0 or self.first_id < 0:
            raise ExportError("a vocabulary needs codebooks of at least 1 code, and no negative number")
        if len(set(self.texts)) != len(self.texts):
            raise ExportError("two speech tokens have the same text; choose other names or another template")

    @property
    def size(self) -> int:
        """Ids in all, text and speech: how many rows an embedding needs."""
        return self.first_id + len(self.texts)

    @cached_property
    def texts(self) -> list[str]:
        """How each speech token is written, that of ``first_id`` first."""
        found: list[str] = []
        for number, (name, size) in enumerate(self.codebooks.items()):
            if self.template == PRIVATE_USE:
                first = len(found)
                found += (private_use_character(first + code) for code in range(size))
                continue
            template = self.template if number == 0 else self.template.replace("{}", f"{name}_{{}}")
            found += (template.replace("{}", str(code)) for code in range(size))
        found += (self.duration_template.replace("{}", str(frames)) for frames in range(1, self.durations + 1))
        return found + list(self.specials.values())

    def offset(self, codebook: str | None = None) -> int:
        """The id of code 0 of a codebook, the first by default."""
        found = self.first_id
        for name, size in self.codebooks.items():
            if codebook in (None, name):
                return found
            found += size
        raise ExportError(f"unknown codebook {codebook!r}; the vocabulary has {', '.join(self.codebooks)}")

    @property
    def duration_offset(self) -> int:
        """One less than the id of the duration of 1 frame."""
        return self.first_id + sum(self.codebooks.values()) - 1

    def special(self, role: str) -> int:
        """The id of a special token by its role."""
        if role not in self.specials:
            raise ExportError(f"the vocabulary has no {role!r} token; it has {', '.join(self.specials)}")
        return self._special_ids[role]

    @cached_property
    def _special_ids(self) -> dict[str, int]:
        first = self.duration_offset + 1 + self.durations
        return {role: first + number for number, role in enumerate(self.specials)}

    def ids(self, codes: ArrayLike, codebook: str | None = None) -> NDArray[np.int32]:
        """Ids of codes. Raises ``ExportError`` for codes outside the codebook."""
        array = np.asarray(codes, dtype=np.int64)
        size = self.codebooks[codebook or next(iter(self.codebooks))]
        # As unsigned numbers, negative ones are large: one comparison finds both.
        if array.view(np.uint64).max(initial=0) >= size:
            raise ExportError(f"codes from {array.min()} to {array.max()} in a vocabulary of {size}")
        return (array + self.offset(codebook)).astype(np.int32)

    def codes(self, ids: ArrayLike, codebook: str | None = None) -> NDArray[np.int32]:
        """Codes of ids. Raises ``ExportError`` for ids that are not this codebook's."""
        array = np.asarray(ids, dtype=np.int64) - self.offset(codebook)
        size = self.codebooks[codebook or next(iter(self.codebooks))]
        if array.size and not 0 <= array.min() <= array.max() < size:
            raise ExportError("an id is not a speech token of this codebook")
        return array.astype(np.int32)

    def spell(self, ids: ArrayLike) -> str:
        """How speech tokens and special tokens are written, end to end."""
        return "".join(map(self.texts.__getitem__, (np.asarray(ids, dtype=np.int64) - self.first_id).tolist()))

    def check(self, fingerprint: str) -> None:
        """Raise ``ExportError`` unless the tokens of this fingerprint are the vocabulary's."""
        if fingerprint != self.fingerprint:
            raise ExportError(
                f"the vocabulary is of another tokenizer ({self.tokenizer}, {self.fingerprint[:12]}) "
                f"than the tokens ({fingerprint[:12]})"
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields and what follows from them, for people and other programs."""
        return {
            "spintok_vocabulary": FORMAT,
            **asdict(self),
            "offsets": {name: self.offset(name) for name in self.codebooks},
            "special_ids": {role: self.special(role) for role in self.specials},
            "size": self.size,
        }

    def save(self, path: Path) -> None:
        """Write the map as JSON."""
        with atomic(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """The map that ``save`` wrote; ``path`` is the file, or the folder that holds it as vocabulary.spintok.json."""
        file = path / VOCABULARY_FILE if path.is_dir() else path
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            found = cls(**{name: content[name] for name in cls.__dataclass_fields__})
            if content["spintok_vocabulary"] != FORMAT or content["offsets"] != found.to_dict()["offsets"]:
                raise ExportError(f"{file}: another format of the map than this release reads ({FORMAT})")
        except FileNotFoundError:
            raise ExportError(f"{file}: no such file; spintok export --to hf-tokenizer writes it") from None
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ExportError(f"{file}: not a vocabulary of spintok's ({error!r})") from None
        return found
