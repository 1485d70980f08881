"""Many arrays in one file, read through a memory map: frame labels, features of frozen layers, features to cluster."""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spintok._files import atomic

__all__ = ["ArrayFile"]


class ArrayFile:
    """A sequence of arrays in a file that ``write`` created.

    The file is opened on first access, so an instance can be sent to other processes.
    """

    def __init__(self, path: Path) -> None:
        """Args: ``path`` as given to ``write``."""
        self._path = path
        self._opened: tuple[NDArray[np.int64], NDArray[np.generic]] | None = None

    @classmethod
    def write(cls, path: Path, arrays: Iterable[NDArray[np.generic]]) -> "ArrayFile":
        """Write at least one array; all must have the same dtype and the same shape but for the first dimension.

        ``path`` holds the rows of all arrays one after another, ``path`` + ``.npz`` their offsets. The offsets are
        written last, so a file with offsets is complete.
        """
        offsets = [0]
        kind: np.dtype[np.generic] = np.dtype(np.uint8)
        shape: tuple[int, ...] = ()
        with atomic(path) as temporary, temporary.open("wb") as file:
            for array in arrays:
                kind, shape = array.dtype, array.shape[1:]
                file.write(np.ascontiguousarray(array).tobytes())
                offsets.append(offsets[-1] + len(array))
        with atomic(_index(path)) as temporary, temporary.open("wb") as file:
            np.savez(file, offsets=np.array(offsets), shape=np.array(shape, dtype=np.int64), kind=np.array(kind.str))
        return cls(path)

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether ``write`` completed for ``path``."""
        return _index(path).exists()

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
            with np.load(_index(self._path)) as index:
                offsets, shape = index["offsets"], tuple(index["shape"].tolist())
                kind = np.dtype(str(index["kind"]))
            size, expected = self._path.stat().st_size, int(offsets[-1]) * math.prod(shape) * kind.itemsize
            if size != expected:
                index_path = _index(self._path)
                raise ValueError(f"{self._path}: has {size} bytes, not {expected}: delete {index_path} to redo it")
            if expected == 0:
                rows: NDArray[np.generic] = np.zeros((0, *shape), dtype=kind)
            else:
                rows = np.memmap(self._path, dtype=kind, mode="r", shape=(int(offsets[-1]), *shape))
            self._opened = offsets, rows
        return self._opened

    def __getstate__(self) -> dict[str, object]:
        return {"_path": self._path, "_opened": None}


def _index(path: Path) -> Path:
    return path.with_name(f"{path.name}.npz")
