"""NumPy archives: the strings of a shard, and its codes concatenated, with the offset of each utterance."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from spintok._files import atomic
from spintok.corpus.token_formats import Record, arrays_of, utterance_of
from spintok.export.formats.columns import record_of, tokens_of_arrays
from spintok.export.source import Header

__all__ = ["read_npz", "write_npz"]


def write_npz(path: Path, records: Sequence[Record], header: Header) -> None:
    """Write one shard of N utterances.

    ``key``, ``file_name``, ``speaker`` ("" when unknown), ``num_samples`` (-1 when unknown), (N,); for each codebook
    ``units`` and ``duration``, (R,) int32, and ``units_offset``, (N + 1,): utterance ``i`` is
    ``units[units_offset[i]:units_offset[i + 1]]``. No array is pickled.
    """
    rows = [arrays_of(record, header) for record in records]
    utterances = [utterance_of(record) for record in records]
    arrays = {
        "fingerprint": np.array(header.fingerprint),
        "num_samples": np.array([-1 if u["num_samples"] is None else u["num_samples"] for u in utterances], np.int64),
        **{
            name: np.array([u[name] or "" for u in utterances], dtype=np.str_)
            for name in ("key", "file_name", "speaker")
        },
    }
    for name in rows[0]:
        arrays[name] = np.concatenate([row[name] for row in rows])
        arrays[f"{name}_offset"] = np.cumsum([0, *(row[name].size for row in rows)], dtype=np.int64)
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_npz(path: Path, header: Header) -> Iterator[Record]:
    """The records of a shard of ``write_npz``."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    fields = [name.removesuffix("_offset") for name in arrays if name.endswith("_offset")]
    for i, key in enumerate(arrays["key"].tolist()):
        row = {}
        for field in fields:
            start, end = arrays[f"{field}_offset"][i : i + 2]
            row[field] = arrays[field][start:end]
        samples = int(arrays["num_samples"][i])
        utterance = {
            "key": key,
            "file_name": str(arrays["file_name"][i]),
            "speaker": str(arrays["speaker"][i]) or None,
        }
        yield record_of(utterance, tokens_of_arrays(row, header, None if samples < 0 else samples))
