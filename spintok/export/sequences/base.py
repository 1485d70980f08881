"""Training sequences of a language model: ids, loss mask and text; and the speech-only sequence of GSLM."""

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
"""A function from text to ids, without begin or end tokens; see ``hf_tokenizer.text_encoder``."""

Form = Literal["units", "frames", "durations"]
"""How speech is written: the code of each run, the code of each frame, or the code and the duration of each run."""


class UnitEncoder(Protocol):
    """Something that merges units into ids of a codebook named "bpe", such as ``bpe.UnitBpe``: a fourth form."""

    def encode(self, units: Ids) -> Ids:
        """The ids, (L,), of units, (R,)."""
        ...


@dataclass(frozen=True, eq=False)
class TokenSequence:
    """One document.

    Attributes:
        ids: (L,) int32.
        loss_mask: (L,) bool, True where the id contributes to the loss; never at the first id.
        spelling: computes ``text``, which takes longer than the rest and is rarely needed.
    """

    ids: Ids
    loss_mask: NDArray[np.bool_]
    spelling: Callable[[], str] = str

    @property
    def text(self) -> str:
        """The ids as text, which an extended tokenizer encodes to ``ids``."""
        return self.spelling()

    def __len__(self) -> int:
        return int(self.ids.size)


class Part(NamedTuple):
    """A part of a sequence that has a loss, or none."""

    ids: Ids
    loss: bool
    spelling: Callable[[], str]


def join(parts: Iterable[Part]) -> TokenSequence:
    """Concatenate parts."""
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
    """A special token, by its role."""
    ids = np.array([vocabulary.special(role)], dtype=np.int32)
    return Part(ids, loss, lambda: vocabulary.specials[role])


def speech_part(tokens: Tokens, vocabulary: Vocabulary, form: Form | UnitEncoder = "units", loss: bool = True) -> Part:
    """Speech tokens. Raises ``ExportError`` if there are none."""
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
    """Text. Raises ``ExportError`` if it is empty, or if some of it would be encoded as speech tokens."""
    if not text.strip():
        raise ExportError("an utterance without text cannot be part of a sequence with text")
    ids = np.fromiter(encode_text(text), dtype=np.int64)
    if ids.size and not 0 <= ids.min() <= ids.max() < vocabulary.first_id:
        raise ExportError(
            f"the text {text[:40]!r} contains the name of a speech token, or is encoded by another tokenizer"
        )
    return Part(ids.astype(np.int32), loss, lambda: text)


def speech_only(tokens: Tokens, vocabulary: Vocabulary, form: Form | UnitEncoder = "units") -> TokenSequence:
    """``[SOS] speech [EOS]``, the speech-only sequence of GSLM (Lakhotia et al. 2021, arXiv 2102.01192).

    ``read_speech`` is its inverse; for the form "units" it does not know the durations.
    """
    return join(
        [
            marker("begin_speech", vocabulary, False),
            speech_part(tokens, vocabulary, form),
            marker("end_speech", vocabulary),
        ]
    )


def read_speech(ids: Ids, vocabulary: Vocabulary, form: Form = "units") -> tuple[Ids, Ids]:
    """The units and durations, (R,) int32 each, of a sequence of ``speech_only``.

    Durations are 1 unless the form is "durations". Raises ``ExportError`` for another sequence.
    """
    if ids.size < 2 or ids[0] != vocabulary.special("begin_speech") or ids[-1] != vocabulary.special("end_speech"):
        raise ExportError(
            "not a speech-only sequence: it does not begin and end with the tokens for begin and end of speech"
        )
    body = ids[1:-1]
    if form != "durations":
        units = vocabulary.codes(body)
        return units, np.ones_like(units)
    if body.size % 2:
        raise ExportError("not a sequence of units and durations: its length is odd")
    durations = body[1::2].astype(np.int64) - vocabulary.duration_offset
    if durations.size and not 1 <= durations.min() <= durations.max() <= vocabulary.durations:
        raise ExportError("not a sequence of units and durations: an id at an odd index is no duration")
    return vocabulary.codes(body[0::2]), durations.astype(np.int32)


def _with_durations(tokens: Tokens, vocabulary: Vocabulary) -> Ids:
    """Units and durations in turn; a run that is longer than the longest duration token is split."""
    longest = vocabulary.durations
    if not longest:
        raise ExportError("the vocabulary has no duration tokens; make it with durations=N")
    pieces = -(-tokens.durations // longest)
    units = np.repeat(tokens.units, pieces)
    durations = np.full(units.size, longest, dtype=np.int64)
    durations[np.cumsum(pieces) - 1] = tokens.durations - (pieces - 1) * longest
    return np.stack([vocabulary.ids(units), durations + vocabulary.duration_offset], axis=1).ravel().astype(np.int32)
