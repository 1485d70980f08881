"""WebDataset shards: tars of samples, each with a ``.json`` and one ``.npy`` per array.

Samples are named by their number, because WebDataset splits names at the first dot; the key is in the JSON.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spintok._files import atomic
from spintok.corpus.token_formats import Record, arrays_of, utterance_of
from spintok.export.errors import ExportError
from spintok.export.formats.columns import record_of, tokens_of_arrays
from spintok.export.source import Header

__all__ = ["read_webdataset", "write_webdataset"]


def write_webdataset(path: Path, records: Sequence[Record], header: Header) -> None:
    """Write one shard. The same records give the same bytes."""
    with atomic(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, record in enumerate(records):
            content = {**utterance_of(record), "fingerprint": header.fingerprint}
            _add(tar, f"{number:09d}.json", json.dumps(content).encode())
            for name, array in arrays_of(record, header).items():
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, array, allow_pickle=False)
                _add(tar, f"{number:09d}.{name}.npy", buffer.getvalue())


def read_webdataset(path: Path, header: Header) -> Iterator[Record]:
    """The records of a shard. Raises ``ExportError`` if a sample has the fingerprint of another tokenizer."""
    with tarfile.open(path) as tar:
        utterance: dict[str, Any] = {}
        arrays: dict[str, Any] = {}
        for member in tar:
            name = member.name.partition(".")[2]
            file = tar.extractfile(member)
            assert file is not None
            if name == "json":
                if utterance:
                    yield record_of(utterance, tokens_of_arrays(arrays, header, utterance["num_samples"]))
                utterance, arrays = json.loads(file.read()), {}
                if utterance["fingerprint"] != header.fingerprint:
                    raise ExportError(f"{path}: holds tokens of another tokenizer than its folder")
            else:
                arrays[name.removesuffix(".npy")] = np.lib.format.read_array(
                    io.BytesIO(file.read()), allow_pickle=False
                )
        if utterance:
            yield record_of(utterance, tokens_of_arrays(arrays, header, utterance["num_samples"]))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
