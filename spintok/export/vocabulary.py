"""The ids of speech tokens in a language model's vocabulary, saved as JSON beside its tokenizer.

Ids below ``first_id`` are text. From ``first_id`` on follow, without gaps, the codes of each codebook, the durations
1, 2, ..., and the special tokens.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spintok._files import write_text
from spintok.export.errors import ExportError

__all__ = ["PRIVATE_USE", "SPECIALS", "VOCABULARY_FILE", "Vocabulary", "private_use_character"]

VOCABULARY_FILE = "vocabulary.spintok.json"

PRIVATE_USE = "private-use"
"""The template that writes each code as one character of Unicode's private-use areas."""

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
"""The text of each special token. The first six are OmniFlatten's (arXiv 2410.17799), the next two SpiRit-LM's."""

FORMAT = 1
LARGEST = 2**24
"""The largest size in a file that is read: beyond it, listing the texts would take gigabytes."""


def private_use_character(number: int) -> str:
    """Character ``number`` of the 137,468 in Unicode's private-use areas, which do not occur in text."""
    for first, count in ((0xE000, 6400), (0xF0000, 65534), (0x100000, 65534)):
        if number < count:
            return chr(first + number)
        number -= count
    raise ExportError("Unicode has 137,468 private-use characters, fewer than the codebooks have codes")


@dataclass(frozen=True)
class Vocabulary:
    """The id and the text of every speech token.

    Attributes:
        tokenizer: the name of the speech tokenizer.
        fingerprint: that of the speech tokenizer, or the ``identity`` of a BPE over its units.
        codebooks: the number of codes of each codebook by name.
        first_id: the id of code 0 of the first codebook.
        template: the text of a code, with ``{}`` for its number; or ``"private-use"``.
        specials: the text of each special token by role, in the order of their ids.
        durations: the number of duration tokens, for 1, 2, ... frames.
        duration_template: the text of a duration, with ``{}`` for its number.

    Raises:
        ExportError: a template without ``{}``, an unknown role, two tokens with one text, or a negative number.
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
                raise ExportError(f"{name} {text!r}: it must contain {{}} once, in place of the number")
        unknown = set(self.specials) - set(SPECIALS)
        if unknown:
            raise ExportError(f"unknown special token {min(unknown)!r}: the roles are {', '.join(SPECIALS)}")
        if not self.codebooks or min(self.codebooks.values()) < 1 or self.durations < 0 or self.first_id < 0:
            raise ExportError("a vocabulary needs a codebook, at least 1 code in each, and no negative numbers")
        if len(set(self.texts)) != len(self.texts):
            raise ExportError("two speech tokens have the same text; choose other names or another template")

    @property
    def size(self) -> int:
        """The number of ids of text and speech, which is the number of rows that an embedding needs."""
        return self.first_id + len(self.texts)

    @cached_property
    def texts(self) -> list[str]:
        """The texts of all speech tokens, from ``first_id`` on."""
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
        """The id of code 0 of a codebook, by default of the first one."""
        found = self.first_id
        for name, size in self.codebooks.items():
            if codebook in (None, name):
                return found
            found += size
        raise ExportError(f"unknown codebook {codebook!r}; the vocabulary has {', '.join(self.codebooks)}")

    @property
    def duration_offset(self) -> int:
        """The id of the duration of 1 frame, less 1."""
        return self.first_id + sum(self.codebooks.values()) - 1

    def special(self, role: str) -> int:
        """The id of a special token by its role. Raises ``ExportError`` for a role without one."""
        if role not in self.specials:
            raise ExportError(f"the vocabulary has no {role!r} token; it has {', '.join(self.specials)}")
        return self._special_ids[role]

    @cached_property
    def _special_ids(self) -> dict[str, int]:
        first = self.duration_offset + 1 + self.durations
        return {role: first + number for number, role in enumerate(self.specials)}

    def ids(self, codes: ArrayLike, codebook: str | None = None) -> NDArray[np.int32]:
        """The ids, int32, of codes of any shape. Raises ``ExportError`` for codes outside the codebook."""
        array = np.asarray(codes, dtype=np.int64)
        size = self.codebooks[codebook or next(iter(self.codebooks))]
        # Negative numbers are large when read as unsigned, so one comparison finds both kinds.
        if array.view(np.uint64).max(initial=0) >= size:
            raise ExportError(f"codes from {array.min()} to {array.max()} in a vocabulary of {size}")
        return (array + self.offset(codebook)).astype(np.int32)

    def codes(self, ids: ArrayLike, codebook: str | None = None) -> NDArray[np.int32]:
        """The codes, int32, of ids of any shape. Raises ``ExportError`` for ids of something else."""
        array = np.asarray(ids, dtype=np.int64) - self.offset(codebook)
        size = self.codebooks[codebook or next(iter(self.codebooks))]
        if array.size and not 0 <= array.min() <= array.max() < size:
            raise ExportError("an id is not a speech token of this codebook")
        return array.astype(np.int32)

    def spell(self, ids: ArrayLike) -> str:
        """The texts of speech tokens and special tokens, concatenated."""
        return "".join(map(self.texts.__getitem__, (np.asarray(ids, dtype=np.int64) - self.first_id).tolist()))

    def check(self, fingerprint: str) -> None:
        """Raise ``ExportError`` unless the vocabulary is for the tokens of this fingerprint."""
        if fingerprint != self.fingerprint:
            raise ExportError(
                f"the vocabulary is of another tokenizer ({self.tokenizer}, {self.fingerprint[:12]}) "
                f"than the tokens ({fingerprint[:12]})"
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields, and the ids that follow from them, for people and other programs."""
        return {
            "spintok_vocabulary": FORMAT,
            **asdict(self),
            "offsets": {name: self.offset(name) for name in self.codebooks},
            "special_ids": {role: self.special(role) for role in self.specials},
            "size": self.size,
        }

    def save(self, path: Path) -> None:
        """Write the vocabulary as JSON."""
        write_text(path, json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Read a vocabulary.

        Args:
            path: the file, or the folder that contains it as ``vocabulary.spintok.json``.

        Raises:
            ExportError: the file is missing, damaged, or of another version.
        """
        file = path / VOCABULARY_FILE if path.is_dir() else path
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if content["spintok_vocabulary"] != FORMAT:
                raise ExportError(f"{file}: version {content['spintok_vocabulary']!r:.20}; this release reads {FORMAT}")
            fields = {name: content[name] for name in cls.__dataclass_fields__}
            _check_fields(fields)
            found = cls(**fields)
            if content["offsets"] != found.to_dict()["offsets"]:
                raise ExportError(f"{file}: its offsets do not fit its codebooks, so it was changed by hand")
        except ExportError:
            raise
        except FileNotFoundError:
            raise ExportError(f"{file}: no such file; spintok export --to hf-tokenizer writes it") from None
        except (OSError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ExportError(f"{file}: not a vocabulary of spintok ({error!r:.200})") from None
        return found


def _check_fields(fields: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for values of the wrong type, and for sizes that no language model has."""
    for name in ("tokenizer", "fingerprint", "template", "duration_template"):
        if not isinstance(fields[name], str):
            raise ValueError(f"{name} is {fields[name]!r:.80}")
    for name, kind in (("codebooks", int), ("specials", str)):
        if not isinstance(fields[name], dict) or any(type(value) is not kind for value in fields[name].values()):
            raise ValueError(f"{name} is {fields[name]!r:.80}")
    sizes = [fields["first_id"], fields["durations"], *fields["codebooks"].values()]
    if any(type(size) is not int or not 0 <= size <= LARGEST for size in sizes):
        raise ValueError(f"sizes are {sizes!r:.80}")
