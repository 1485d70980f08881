"""fairseq's files: the manifest ``tokens.tsv``, a line of codes for each of its lines in ``tokens.km``, the dictionary.

As HuBERT's training and simple_kmeans read them: the root, then ``path<TAB>samples``; ``dict.km.txt`` counts each of
the K codes once.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from spintok.corpus.token_formats import Record
from spintok.export.errors import ExportError
from spintok.export.folder import text_files
from spintok.export.formats.columns import only, read_utterances, record_of, together, utterance_line
from spintok.export.source import Header
from spintok.tokens import Tokens

__all__ = ["read_fairseq", "write_fairseq"]

UTTERANCES, TSV, KM, DICTIONARY = "utterances.jsonl", "tokens.tsv", "tokens.km", "dict.km.txt"


def write_fairseq(folder: Path, records: Iterable[Record], header: Header) -> list[Path]:
    """Write the manifest, the codes and the dictionary. Raises ``ExportError`` for a name a .tsv cannot hold."""
    size = header.codebooks[header.codebook]
    # Looking a word up is twice as fast as formatting a number.
    words = [str(code) for code in range(size)]
    paths = [folder / name for name in (UTTERANCES, DICTIONARY, TSV, KM)]
    with text_files(*paths) as (utterances, dictionary, tsv, km):
        dictionary.writelines(f"{word} 1\n" for word in words)
        absolute: bool | None = None
        for record in records:
            tokens = only(record, header)
            if absolute is None:
                absolute = record.file_name.startswith("/")
                tsv.write("/\n" if absolute else ".\n")
            _check(record, tokens, absolute)
            utterances.write(utterance_line(record, header))
            tsv.write(f"{record.file_name.removeprefix('/')}\t{tokens.num_samples}\n")
            km.write(" ".join(map(words.__getitem__, tokens.codes.tolist())) + "\n")
    return paths


def read_fairseq(folder: Path, header: Header) -> Iterator[Record]:
    """What ``write_fairseq`` wrote."""
    with (folder / TSV).open(encoding="utf-8", newline="\n") as tsv, (folder / KM).open(encoding="utf-8") as km:
        root = tsv.readline().rstrip("\n").rstrip(".")
        lines = together(tsv, km, folder / KM)
        for utterance, (name, codes) in together(read_utterances(folder / UTTERANCES), lines, folder / TSV):
            path, _, samples = name.rstrip("\n").rpartition("\t")
            tokens = Tokens(np.array(codes.split(), dtype=np.int32), header.codebooks[header.codebook], int(samples))
            yield record_of({**utterance, "file_name": root + path}, {header.codebook: tokens})


def _check(record: Record, tokens: Tokens, absolute: bool) -> None:
    if tokens.num_samples is None:
        raise ExportError(f"{record.key!r}: a .tsv states the samples of a file, and they are not known")
    if any(mark in record.file_name for mark in "\t\n\r"):
        raise ExportError(f"{record.file_name!r}: a .tsv cannot hold this name; use another target")
    if record.file_name.startswith("/") != absolute:
        raise ExportError(f"{record.file_name!r}: a .tsv has one root, so paths must be all absolute or all relative")
