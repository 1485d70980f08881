"""fairseq's pair of files: a manifest ``.tsv`` (the root, then ``path<TAB>samples``) and a line of codes for each file.

As HuBERT's training and simple_kmeans read them.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spintok._files import atomic
from spintok.corpus.token_formats.record import Record, ShardError
from spintok.data.locations.base import is_url
from spintok.tokens import Tokens

__all__ = ["codes_line", "manifest_line", "read_km", "write_km"]


def manifest_line(file_name: str, num_samples: int | None) -> str:
    """A line of a ``.tsv``. Raises ``ShardError`` for what it cannot hold."""
    if num_samples is None:
        raise ShardError(f"{file_name!r}: a .tsv states the samples of a file, and they are not known")
    if any(mark in file_name for mark in "\t\n\r"):
        raise ShardError(f"{file_name!r}: a .tsv cannot hold this name; choose another format")
    return f"{file_name}\t{num_samples}\n"


def codes_line(tokens: Tokens, words: Sequence[str]) -> str:
    """A line of a ``.km``; ``words[code]`` is the code as text, which is faster to look up than to format."""
    return " ".join(map(words.__getitem__, tokens.codes.tolist())) + "\n"


def write_km(path: Path, records: Sequence[Record]) -> None:
    """Write ``path`` and, before it, its ``.tsv``, each atomically; names are absolute, so the root is "/"."""
    tokens = [next(iter(record.tokens.values())) for record in records]
    words = [str(code) for code in range(tokens[0].codebook_size)] if tokens else []
    names = [manifest_line(record.file_name, one.num_samples) for record, one in zip(records, tokens, strict=True)]
    lines = [codes_line(one, words) for one in tokens]
    for target, text in ((path.with_suffix(".tsv"), "/\n" + "".join(names)), (path, "".join(lines))):
        with atomic(target) as temporary:
            temporary.write_bytes(text.encode("utf-8", "surrogateescape"))


def read_km(tsv: Path, km: Path) -> Iterator[tuple[str, int, NDArray[np.int32]]]:
    r"""For each file its path, its samples and its codes, (T,) int32.

    Only "\n" ends a line: a path may contain other line separators.

    Raises:
        ShardError: a file is missing, a line is damaged, or the two files have different numbers of lines.
    """
    try:
        with tsv.open(encoding="utf-8", errors="surrogateescape", newline="\n") as manifest, km.open("rb") as codes:
            root = manifest.readline().rstrip("\n")
            for number, (row, line) in enumerate(zip_longest(manifest, codes)):
                if row is None or line is None:
                    files, lines = (number + (one is not None) for one in (row, line))
                    files, lines = files + sum(1 for _ in manifest), lines + sum(1 for _ in codes)
                    raise ShardError(f"{km}: {lines} lines for {files} files in its .tsv")
                path, _, samples = row.rstrip("\n").rpartition("\t")
                array = np.array(line.split(), dtype=np.int32)
                yield path if root == "." or is_url(path) else os.path.join(root, path), int(samples), array  # noqa: PTH118
    except FileNotFoundError as error:
        raise ShardError(f"{error.filename}: missing; a .km file and its .tsv belong together") from None
    except (ValueError, OverflowError) as error:
        if isinstance(error, ShardError):
            raise
        raise ShardError(f"{km}: not codes with their .tsv: {error}") from None
