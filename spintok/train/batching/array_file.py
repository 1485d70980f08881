"""Arrays of many utterances in one file, read back by memory map: labels, and features of frozen layers."""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spintok._files import atomic

__all__ = ["Packed"]


class Packed:
    """The arrays that ``write`` wrote, by number.

    The file is opened when it is first read, so this may travel to other processes.
    """

    def __init__(self, path: Path) -> None:
        """``path``: as given to ``write``."""
        self._path = path
        self._opened: tuple[NDArray[np.int64], NDArray[np.generic]] | None = None

    @classmethod
    def write(cls, path: Path, arrays: Iterable[NDArray[np.generic]]) -> "Packed":
        """Write arrays that agree in their type and in all but their first size, at least one.

        Beside ``path``, which holds their rows, stands ``path`` with ``.npz`` added, which says where each begins; it
        is written last, so where it is, all is whole.
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
        """Whether ``write`` finished there."""
        return _index(path).exists()

    def __len__(self) -> int:
        return len(self._open()[0]) - 1

    def __getitem__(self, number: int) -> NDArray[np.generic]:
        """A copy of array ``number``."""
        offsets, rows = self._open()
        return np.array(rows[offsets[number] : offsets[number + 1]])

    def _open(self) -> tuple[NDArray[np.int64], NDArray[np.generic]]:
        if self._opened is None:
            with np.load(_index(self._path)) as index:
                offsets, shape = index["offsets"], tuple(index["shape"].tolist())
                kind = np.dtype(str(index["kind"]))
            if offsets[-1] * math.prod(shape) == 0:
                rows: NDArray[np.generic] = np.zeros((0, *shape), dtype=kind)
            else:
                rows = np.memmap(self._path, dtype=kind, mode="r", shape=(int(offsets[-1]), *shape))
            self._opened = offsets, rows
        return self._opened

    def __getstate__(self) -> dict[str, object]:
        return {"_path": self._path, "_opened": None}


def _index(path: Path) -> Path:
    return path.with_name(f"{path.name}.npz")
