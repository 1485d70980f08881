"""Recordings in tar and Parquet files, as WebDataset and Hugging Face store them."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet

AUDIO = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def tar_of(members: Mapping[str, bytes], **options: object) -> bytes:
    """A tar file with these members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def samples_of(paths: Sequence[Path]) -> dict[str, bytes]:
    """WebDataset's members of recordings: audio, JSON and text of each."""
    members = {}
    for path in paths:
        members[path.name] = path.read_bytes()
        members[f"{path.stem}.json"] = json.dumps({"speaker": path.stem[0], "duration": 1.5}).encode()
        members[f"{path.stem}.txt"] = b"words"
    return members


def parquet_of(paths: Sequence[Path | None], group: int = 2, **columns: Sequence[object]) -> bytes:
    """A Parquet file with a column of audio, and others; None is a row without audio."""
    audio = [None if path is None else {"bytes": path.read_bytes(), "path": path.name} for path in paths]
    table = pyarrow.table({**columns, "audio": pyarrow.array(audio, AUDIO)})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, row_group_size=group)
    return buffer.getvalue()
