"""Megatron's indexed datasets: sequences of integers concatenated in ``.bin``, with their offsets in ``.idx``.

The index, all little-endian: ``MMIDIDX`` and two zero bytes; version 1 (uint64); the code of the data type (uint8);
N, the number of sequences (uint64); the number of document boundaries (uint64); then the length of each sequence
(int32), its offset in ``.bin`` in bytes (int64), and the boundaries, ``[0, ..., N]`` (int64): document ``d`` consists
of the sequences from boundary ``d`` to boundary ``d + 1``. Here every document is one sequence. This is the layout of
``IndexedDataset`` in megatron-core, which fairseq, GPT-NeoX and DeepSpeed read too.

The data types have the codes 1 (uint8), 4 (int32) and 8 (uint16). There is none for uint32, so 32-bit ids are stored
as int32, which has the same bytes for ids below 2**31.
"""

import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spintok._files import atomic
from spintok.export.errors import ExportError

__all__ = ["IdType", "IndexedDataset", "id_type", "indexed_paths", "indexed_writer"]

IdType = Literal["uint8", "uint16", "uint32"]

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
LENGTH = struct.Struct("<i")
CODES: dict[IdType, tuple[int, str]] = {"uint8": (1, "|u1"), "uint16": (8, "<u2"), "uint32": (4, "<i4")}
BLOCK = 1 << 16
"""Lengths to convert to offsets in one step."""


def id_type(vocabulary_size: int, wanted: IdType | None = None) -> IdType:
    """The data type for ids below ``vocabulary_size``: ``wanted``, or the smaller of uint16 and uint32 that fits.

    Raises ``ExportError`` if the ids do not fit.
    """
    if vocabulary_size > 2**31:
        raise ExportError(f"a vocabulary of {vocabulary_size} ids does not fit in 32 bits")
    if wanted == "uint16" and vocabulary_size > 2**16:
        raise ExportError(f"a vocabulary of {vocabulary_size} ids does not fit in uint16 (65536); use uint32")
    return wanted or ("uint16" if vocabulary_size <= 2**16 else "uint32")


def indexed_paths(prefix: Path) -> list[Path]:
    """The ``.bin`` and the ``.idx`` of a dataset; the index is written last."""
    return [prefix.with_name(f"{prefix.name}.bin"), prefix.with_name(f"{prefix.name}.idx")]


@contextmanager
def indexed_writer(prefix: Path, dtype: IdType) -> Iterator[Callable[[ArrayLike], None]]:
    """Yield a function that appends a sequence of ids; both files appear when the block ends without an exception.

    The function raises ``ExportError`` for ids that do not fit. Memory does not grow with the number of sequences.
    """
    code, kind = CODES[dtype]
    limit = np.iinfo(kind).max + 1
    data_path, index_path = indexed_paths(prefix)
    with atomic(index_path) as index, atomic(data_path) as data, tempfile.TemporaryFile() as lengths:
        with data.open("wb") as file:

            def append(ids: ArrayLike) -> None:
                array = np.asarray(ids, dtype=np.int64)
                # Negative numbers are large when read as unsigned, so one comparison finds both kinds.
                if array.view(np.uint64).max(initial=0) >= limit:
                    raise ExportError(f"ids from {array.min()} to {array.max()} do not fit below {limit}")
                file.write(array.astype(kind).tobytes())
                lengths.write(LENGTH.pack(array.size))

            yield append
        _write_index(index, code, np.dtype(kind).itemsize, lengths)


def _write_index(path: Path, code: int, size: int, lengths: IO[bytes]) -> None:
    count = lengths.seek(0, os.SEEK_END) // 4
    with path.open("wb") as index:
        index.write(HEADER.pack(MAGIC, 1, code, count, count + 1))
        for block in _blocks(lengths):
            index.write(block.tobytes())
        start = 0
        for block in _blocks(lengths):
            steps = block.astype("<i8") * size
            ends = start + np.cumsum(steps)
            index.write((ends - steps).tobytes())
            start = int(ends[-1])
        for first in range(0, count + 1, BLOCK):
            index.write(np.arange(first, min(first + BLOCK, count + 1), dtype="<i8").tobytes())


def _blocks(lengths: IO[bytes]) -> Iterator[NDArray[np.int32]]:
    lengths.seek(0)
    while block := lengths.read(4 * BLOCK):
        yield np.frombuffer(block, dtype="<i4")


class IndexedDataset:
    """An indexed dataset as a sequence of arrays, read through ``numpy.memmap`` when they are used.

    Args:
        prefix: the path of both files without ``.bin`` and ``.idx``.

    Raises:
        ExportError: the files are missing, damaged, or have another data type.

    >>> documents = IndexedDataset(Path("out/tokens"))  # doctest: +SKIP
    >>> documents[0]  # doctest: +SKIP
    memmap([100,  12,  57, ...], dtype=uint16)
    """

    def __init__(self, prefix: Path) -> None:
        data, index = indexed_paths(prefix)
        try:
            with index.open("rb") as file:
                magic, version, code, count, boundaries = HEADER.unpack(file.read(HEADER.size))
            sizes = index.stat().st_size, data.stat().st_size
        except (OSError, struct.error) as error:
            raise ExportError(f"{index}: not the index of an indexed dataset ({error})") from None
        types = dict(CODES.values())
        if magic != MAGIC or version != 1 or code not in types:
            raise ExportError(f"{index}: not an index of version 1 with ids of 8, 16 or 32 bits")
        if boundaries != count + 1 or sizes[0] != HEADER.size + 12 * count + 8 * boundaries:
            raise ExportError(f"{index}: does not have the size that its header says")
        self.dtype = np.dtype(types[code])
        self.lengths: NDArray[np.int32] = _mapped(index, "<i4", HEADER.size, count)
        self.pointers: NDArray[np.int64] = _mapped(index, "<i8", HEADER.size + 4 * count, count)
        self.documents: NDArray[np.int64] = _mapped(index, "<i8", HEADER.size + 12 * count, boundaries)
        self.data: NDArray[Any] = _mapped(data, self.dtype, 0, sizes[1] // self.dtype.itemsize)
        if count and int(self.pointers[-1]) + int(self.lengths[-1]) * self.dtype.itemsize != sizes[1]:
            raise ExportError(f"{data}: does not have the size that its index says")

    def __len__(self) -> int:
        """The number of sequences."""
        return int(self.lengths.size)

    def __getitem__(self, i: int) -> NDArray[Any]:
        """Sequence ``i``, (L,), a view of the file."""
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        start = int(self.pointers[i]) // self.dtype.itemsize
        return self.data[start : start + int(self.lengths[i])]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[i] for i in range(len(self)))


def _mapped(path: Path, dtype: Any, offset: int, count: int) -> NDArray[Any]:
    if not count:
        # numpy cannot map an empty file.
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(count,))
