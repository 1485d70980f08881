"""Recordings to rows of tokens, for pipelines that hold their data themselves."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from spintok.corpus.token_formats import Record, TokenLayout, array_names, arrays_of
from spintok.data.audio import AudioError, Recording
from spintok.inputs import each_or_error, open_item
from spintok.loading import load
from spintok.tokenizer import Tokenizer
from spintok.tokens import Tokens

__all__ = ["RowEncoder"]

_PORTION = 256
"""So many recordings are in memory at a time."""


class RowEncoder:
    """Encodes recordings to the fields that token folders have.

    Args:
        tokenizer: one, or what ``spintok.load`` loads: a name or a folder; the default tokenizer by default.
        codebook: whose codes are wanted; "all", or by default the primary one.
        dedup: runs (``units``, ``duration``), or a code for each frame in ``units``.
        device: where a tokenizer that is loaded computes; "auto" is a GPU if there is one, else the CPU. One that is
            given computes where it is.
        latency: seconds, for the tokens of a stream.
        batch_seconds: audio in one padded batch on a GPU.
        threads: that read audio.

    Attributes:
        arrays: the names of the fields that hold arrays.

    Raises:
        ValueError: an unknown tokenizer, codebook or device, or an impossible latency.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | str | os.PathLike[str] | None = None,
        *,
        codebook: str | None = None,
        dedup: bool = True,
        device: str = "auto",
        latency: float | None = None,
        batch_seconds: float = 200.0,
        threads: int = 2,
    ) -> None:
        loaded = tokenizer if isinstance(tokenizer, Tokenizer) else load(tokenizer, device=device)
        self._tokenizer = loaded if latency is None else loaded.at(latency)
        names = loaded.codebook_names if codebook == "all" else [codebook or loaded.codebook_names[0]]
        self._layout = TokenLayout({name: loaded.size_of(name) for name in names}, dedup, loaded.grid)
        self._batch_seconds = batch_seconds
        self._threads = threads
        self.arrays = array_names(self._layout)

    def __call__(self, recordings: Sequence[Any]) -> list[dict[str, Any]]:
        """A row for each recording, in order.

        Args:
            recordings: recordings in any of the forms that ``Tokenizer.encode`` takes.

        Returns:
            For each recording the fields of ``arrays``, (R,) int32 arrays; ``num_samples`` at 16 kHz; ``num_frames``;
            and ``error``: None, or why the recording cannot be used. Then the arrays are empty and the numbers 0.
        """
        rows: list[dict[str, Any]] = []
        with ThreadPoolExecutor(self._threads) as pool:
            for start in range(0, len(recordings), _PORTION):
                opened = list(pool.map(self._open, recordings[start : start + _PORTION]))
                rows += map(self._row, each_or_error(self._encode, opened))
        return rows

    def _open(self, recording: Any) -> Recording | AudioError:
        tokenizer = self._tokenizer
        try:
            return open_item(recording, None, False, tokenizer.max_samples, tokenizer.resample)
        except AudioError as error:
            return error

    def _encode(self, recordings: Sequence[Recording]) -> list[dict[str, Tokens]]:
        return self._tokenizer.encode_recordings(recordings, list(self._layout.codebooks), self._batch_seconds)

    def _row(self, found: dict[str, Tokens] | AudioError) -> dict[str, Any]:
        if isinstance(found, AudioError):
            nothing = np.zeros(0, np.int32)
            empty = {name: Tokens(nothing, size, 0, self._layout.grid) for name, size in self._layout.codebooks.items()}
            return self._fields(empty) | {"error": str(found)}
        return self._fields(found) | {"error": None}

    def _fields(self, tokens: dict[str, Tokens]) -> dict[str, Any]:
        first = next(iter(tokens.values()))
        numbers = {"num_samples": first.num_samples, "num_frames": first.num_frames}
        return {**arrays_of(Record("", "", tokens), self._layout), **numbers}
