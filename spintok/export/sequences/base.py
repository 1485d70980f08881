"""What a language model reads: ids, a loss mask, and the same as text; and the textless sequence of GSLM."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from spintok.export.errors import ExportError
from spintok.export.vocabulary import Vocabulary
from spintok.tokens import Tokens

__all__ = [
    "Form",
    "Part",
    "TextEncoder",
    "TokenSequence",
    "UnitEncoder",
    "join",
    "marker",
    "read_speech",
    "speech_only",
    "speech_part",
    "text_part",
]

Ids = NDArray[np.int32]
TextEncoder = Callable[[str], Iterable[int]]
"""Text to ids, without begin or end tokens: ``lambda text: tokenizer(text, add_special_tokens=False).input_ids``."""

Form = Literal["units", "frames", "durations"]
"""Speech as the code of each run; as the code of each frame; or as each run's code followed by its duration token."""


class UnitEncoder(Protocol):
    """Shortens units, as ``bpe.UnitBpe`` does; a fourth form, for a vocabulary with a codebook named "bpe"."""

    def encode(self, units: Ids) -> Ids:
        """Ids, (L,), of units, (R,)."""
        ...


@dataclass(frozen=True, eq=False)
class TokenSequence:
    """One document.

    Attributes:
        ids: (L,) int32.
        loss_mask: (L,) bool, True where predicting this id counts. The first id has nothing before it: False.
        spelling: gives ``text``, which few need and which takes longer than all else.
    """

    ids: Ids
    loss_mask: NDArray[np.bool_]
    spelling: Callable[[], str] = str

    @property
    def text(self) -> str:
        """How the ids are written: an extended tokenizer encodes it to ``ids``."""
        return self.spelling()

    def __len__(self) -> int:
        return int(self.ids.size)


class Part(NamedTuple):
    """A stretch of a sequence that is predicted, or given."""

    ids: Ids
    loss: bool
    spelling: Callable[[], str]


def join(parts: Iterable[Part]) -> TokenSequence:
    """Parts end to end."""
    parts = list(parts)
    ids = np.concatenate([part.ids for part in parts])
    mask = np.empty(ids.size, dtype=bool)
    end = 0
    for part in parts:
        start, end = end, end + part.ids.size
        mask[start:end] = part.loss
    mask[:1] = False
    return TokenSequence(ids, mask, lambda: "".join(part.spelling() for part in parts))


def marker(role: str, vocabulary: Vocabulary, loss: bool = True) -> Part:
    """One special token."""
    ids = np.array([vocabulary.special(role)], dtype=np.int32)
    return Part(ids, loss, lambda: vocabulary.specials[role])


def speech_part(tokens: Tokens, vocabulary: Vocabulary, form: Form | UnitEncoder = "units", loss: bool = True) -> Part:
    """Speech tokens in a form. Raises ``ExportError`` when there are none."""
    if not tokens.num_frames:
        raise ExportError("an utterance without tokens cannot be part of a sequence")
    match form:
        case "units":
            ids = vocabulary.ids(tokens.units)
        case "frames":
            ids = vocabulary.ids(tokens.codes)
        case "durations":
            ids = _with_durations(tokens, vocabulary)
        case _:
            ids = vocabulary.ids(form.encode(tokens.units), "bpe")
    return Part(ids, loss, lambda: vocabulary.spell(ids))


def text_part(text: str, vocabulary: Vocabulary, encode_text: TextEncoder, loss: bool = True) -> Part:
    """Text. Raises ``ExportError`` when there is none, or when it would be read as speech tokens."""
    if not text.strip():
        raise ExportError("an utterance without text cannot be part of a sequence with text")
    ids = np.fromiter(encode_text(text), dtype=np.int64)
    if ids.size and not 0 <= ids.min() <= ids.max() < vocabulary.first_id:
        raise ExportError(f"the text {text[:40]!r} holds the name of a speech token, or has another tokenizer's ids")
    return Part(ids.astype(np.int32), loss, lambda: text)


def speech_only(tokens: Tokens, vocabulary: Vocabulary, form: Form | UnitEncoder = "units") -> TokenSequence:
    """``[SOS] speech [EOS]``: the textless sequence of GSLM (Lakhotia et al. 2021, arXiv 2102.01192).

    With the forms "frames" and "durations" ``read_speech`` gives back exactly these tokens.
    """
    return join(
        [
            marker("begin_speech", vocabulary, False),
            speech_part(tokens, vocabulary, form),
            marker("end_speech", vocabulary),
        ]
    )


def read_speech(ids: Ids, vocabulary: Vocabulary, form: Form = "units") -> tuple[Ids, Ids]:
    """Units and durations, (R,) each, of what ``speech_only`` wrote; but for the form "durations", each lasts 1."""
    if ids.size < 2 or ids[0] != vocabulary.special("begin_speech") or ids[-1] != vocabulary.special("end_speech"):
        raise ExportError("not a speech-only sequence: it does not begin and end with the marks of speech")
    body = ids[1:-1]
    if form != "durations":
        units = vocabulary.codes(body)
        return units, np.ones_like(units)
    if body.size % 2:
        raise ExportError("not a sequence of units and durations: its length is odd")
    durations = body[1::2].astype(np.int64) - vocabulary.duration_offset
    if durations.size and not 1 <= durations.min() <= durations.max() <= vocabulary.durations:
        raise ExportError("not a sequence of units and durations: an id at an odd place is no duration")
    return vocabulary.codes(body[0::2]), durations.astype(np.int32)


def _with_durations(tokens: Tokens, vocabulary: Vocabulary) -> Ids:
    """Unit and duration by turns; a run longer than the longest duration token is written as several."""
    longest = vocabulary.durations
    if not longest:
        raise ExportError("the vocabulary has no duration tokens; make it with durations=N")
    pieces = -(-tokens.durations // longest)
    units = np.repeat(tokens.units, pieces)
    durations = np.full(units.size, longest, dtype=np.int64)
    durations[np.cumsum(pieces) - 1] = tokens.durations - (pieces - 1) * longest
    return np.stack([vocabulary.ids(units), durations + vocabulary.duration_offset], axis=1).ravel().astype(np.int32)
