"""Many arrays in one file, read through a memory map: frame labels, features of frozen layers, features to cluster."""

import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spintok._files import atomic

__all__ = ["ArrayFile"]

FIRST_SAVE, SAVE_EVERY = 0.2, 2.0
"""Seconds of writing that a killed process loses: at first, so that one killed again and again gets on, and later."""


class ArrayFile:
    """A sequence of arrays in a file that ``write`` created.

    The file is opened on first access, so an instance can be sent to other processes.
    """

    def __init__(self, path: Path) -> None:
        """Args: ``path`` as given to ``write``."""
        self._path = path
        self._opened: tuple[NDArray[np.int64], NDArray[np.generic]] | None = None

    @classmethod
    def write(cls, path: Path, arrays_after: Callable[[int], Iterable[Iterable[NDArray[np.generic]]]]) -> "ArrayFile":
        """Write at least one array, or the rest of them if an earlier process was killed while it wrote.

        ``path`` holds the rows of all arrays one after another, ``path`` + ``.npz`` their offsets and whether they are
        all. One process at a time may write.

        Args:
            path: the path of the file.
            arrays_after: returns the arrays after the given number of them, which are on disk; each as pieces to join.
                All have the same dtype and the same shape but for the first dimension.
        """
        index = _Index.read(path)
        if index is not None and index.complete:
            return cls(path)
        if index is None or not path.exists() or path.stat().st_size < index.size:
            index = _Index([0], (), np.dtype(np.uint8))
        with path.open("r+b" if path.exists() else "wb") as file:
            file.truncate(index.size)
            file.seek(index.size)
            saved, wait = time.monotonic(), FIRST_SAVE
            for pieces in arrays_after(len(index.offsets) - 1):
                rows = index.offsets[-1]
                for piece in pieces:
                    index.kind, index.shape = piece.dtype, piece.shape[1:]
                    file.write(np.ascontiguousarray(piece).tobytes())
                    rows += len(piece)
                index.offsets.append(rows)
                if time.monotonic() >= saved + wait:
                    # The index names only what is on disk.
                    file.flush()
                    os.fsync(file.fileno())
                    index.write(path)
                    saved, wait = time.monotonic(), min(2 * wait, SAVE_EVERY)
            file.flush()
            os.fsync(file.fileno())
        index.complete = True
        index.write(path)
        return cls(path)

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether ``write`` completed for ``path``."""
        index = _Index.read(path)
        return index is not None and index.complete

    def __len__(self) -> int:
        return len(self._open()[0]) - 1

    def __getitem__(self, number: int) -> NDArray[np.generic]:
        """A copy of array ``number``."""
        offsets, rows = self._open()
        return np.array(rows[offsets[number] : offsets[number + 1]])

    @property
    def rows(self) -> NDArray[np.generic]:
        """The rows of all arrays as one array (N, ...), mapped from the file and read-only."""
        return self._open()[1]

    def _open(self) -> tuple[NDArray[np.int64], NDArray[np.generic]]:
        if self._opened is None:
            index = _Index.read(self._path)
            if index is None:
                raise FileNotFoundError(f"{_index_path(self._path)}: no such file")
            size = self._path.stat().st_size
            if size != index.size:
                where = _index_path(self._path)
                raise ValueError(f"{self._path}: has {size} bytes, not {index.size}: delete {where} to redo it")
            shape = (index.offsets[-1], *index.shape)
            if size == 0:
                rows: NDArray[np.generic] = np.zeros(shape, dtype=index.kind)
            else:
                rows = np.memmap(self._path, dtype=index.kind, mode="r", shape=shape)
            self._opened = np.array(index.offsets), rows
        return self._opened

    def __getstate__(self) -> dict[str, object]:
        return {"_path": self._path, "_opened": None}


@dataclass
class _Index:
    """What of a file is on disk: where its arrays start and end, in rows, and what a row is."""

    offsets: list[int]
    shape: tuple[int, ...]
    kind: np.dtype[np.generic]
    complete: bool = False

    @property
    def size(self) -> int:
        """Bytes of the arrays."""
        return self.offsets[-1] * math.prod(self.shape) * self.kind.itemsize

    @classmethod
    def read(cls, path: Path) -> "_Index | None":
        try:
            with np.load(_index_path(path)) as file:
                # Files of earlier revisions were complete when they had an index.
                complete = bool(file["complete"]) if "complete" in file else True
                kind = np.dtype(str(file["kind"]))
                return cls(file["offsets"].tolist(), tuple(file["shape"].tolist()), kind, complete)
        except FileNotFoundError:
            return None

    def write(self, path: Path) -> None:
        offsets, shape = np.array(self.offsets), np.array(self.shape, dtype=np.int64)
        kind, complete = np.array(self.kind.str), np.array(self.complete)
        with atomic(_index_path(path)) as temporary, temporary.open("wb") as file:
            np.savez(file, offsets=offsets, shape=shape, kind=kind, complete=complete)


def _index_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.npz")
