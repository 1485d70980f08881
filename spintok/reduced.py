"""Tokenizers that give up exactness for speed on a GPU: half precision.

>>> exact = spintok.load("my-hubert", device="cuda")
>>> fast = ReducedTokenizer(exact, "bfloat16")
>>> print(changed_codes(exact, fast, files))
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

from spintok.data.audio import AudioError, Recording
from spintok.frames import SAMPLE_RATE
from spintok.models.encoder import Encoder
from spintok.models.reduced import Precision, check_precision, reduced
from spintok.serialization import StoredDtype
from spintok.streaming.engine import Engine
from spintok.tokenizer import Tokenizer

__all__ = ["Change", "ReducedTokenizer", "changed_codes", "in_precision"]

_SAMPLE_FILES = 8
_SAMPLE_SECONDS = 120.0


class ReducedTokenizer(Tokenizer):
    """A tokenizer whose transformer computes in half precision (``spintok.models.reduced``).

    It shares what is not rounded with the exact tokenizer, and has a fingerprint of its own, so that its tokens are
    never taken for exact ones. A file's tokens do not depend on other files here either.

    Args:
        exact: a tokenizer of whole recordings, on the device on which this one is to run.
        precision: "bfloat16" or "float16".

    Raises:
        ValueError: an unknown precision, an encoder without a transformer, a tokenizer with a latency, or a weight that
            float16 cannot hold.
    """

    def __init__(self, exact: Tokenizer, precision: Precision) -> None:
        if check_precision(precision) == "float32":
            raise ValueError("float32 is the precision of the exact tokenizer: use that")
        if not isinstance(exact.encoder, Encoder):
            raise ValueError(f"the encoder of {exact.name!r} has no transformer that could compute in {precision}")
        if exact.latency is not None:
            raise ValueError(f"streams are computed in float32: leave out the latency, or {precision}")
        super().__init__(
            reduced(exact.encoder, precision),
            exact.codebooks.values(),
            layer=exact.layer,
            name=exact.name,
            window=exact.window,
        )
        self.precision = precision
        self._fingerprint = hashlib.sha256(json.dumps([exact.fingerprint, precision]).encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the exact tokenizer's fingerprint and the precision."""
        return self._fingerprint

    def at(self, latency: float | None) -> Tokenizer:
        """This tokenizer for None. Raises ``ValueError`` for a latency."""
        if latency is not None:
            self._refuse_streams()
        return self

    def save(self, folder: str | os.PathLike[str], *, dtype: StoredDtype = "float32") -> None:
        """Raises ``ValueError``: a folder holds the weights of the exact tokenizer, and no precision."""
        raise ValueError(
            "a folder holds no precision: save the exact tokenizer, and name the precision when you encode"
        )

    def engine(self, latency: float | None, codebooks: Iterable[str | None]) -> Engine:
        self._refuse_streams()

    def _refuse_streams(self) -> NoReturn:
        raise ValueError(f"streams are computed in float32: leave out the latency, or {self.precision}")


def in_precision(tokenizer: Tokenizer, precision: str) -> Tokenizer:
    """``tokenizer`` itself for "float32", else a ``ReducedTokenizer``, whose errors this raises."""
    checked = check_precision(precision)
    return tokenizer if checked == "float32" else ReducedTokenizer(tokenizer, checked)


class Change(NamedTuple):
    """How many codes of a sample two tokenizers give differently.

    Attributes:
        files: how many were encoded by both.
        codes: the number of their codes.
        changed: how many codes differ.
    """

    files: int
    codes: int
    changed: int

    def __str__(self) -> str:
        share = 100 * self.changed / self.codes if self.codes else 0.0
        files = f"{self.files} of these files" if self.files != 1 else "one file"
        return f"{self.changed:,} of {self.codes:,} codes of {files} differ from float32 ({share:.2f} %)"


def changed_codes(exact: Tokenizer, other: Tokenizer, paths: Sequence[Any], codebook: str | None = None) -> Change:
    """Compare two tokenizers on a sample of files, at most 8, spread evenly, or two minutes of audio.

    Files that cannot be read, or that are too long to encode in one piece, are passed over.
    """
    step = max(1, len(paths) // _SAMPLE_FILES)
    recordings: list[Recording] = []
    seconds = 0.0
    for path in paths[::step][:_SAMPLE_FILES]:
        try:
            recording = exact.record(path)
        except AudioError:
            continue
        if recording.waveform is None or (recordings and seconds >= _SAMPLE_SECONDS):
            continue
        recordings.append(recording)
        seconds += len(recording.waveform) / SAMPLE_RATE
    name = exact.codebook(codebook).config.name
    pairs = [
        (a[name].codes, b[name].codes)
        for a, b in zip(
            exact.encode_recordings(recordings, [name]), other.encode_recordings(recordings, [name]), strict=True
        )
    ]
    changed = sum(int((a != b).sum()) for a, b in pairs)
    return Change(len(recordings), sum(len(a) for a, _ in pairs), changed)
