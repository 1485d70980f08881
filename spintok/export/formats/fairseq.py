"""fairseq's files: the manifest ``tokens.tsv``, a line of codes for each of its lines in ``tokens.km``, the dictionary.

As HuBERT's training and simple_kmeans read them: the root, then ``path<TAB>samples``; ``dict.km.txt`` counts each of
the K codes once.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from spintok.corpus.token_formats import Record, ShardError, codes_line, manifest_line, read_km
from spintok.export.errors import ExportError
from spintok.export.folder import text_files
from spintok.export.formats.columns import only, read_utterances, record_of, together, utterance_line
from spintok.export.source import Header
from spintok.tokens import Tokens

__all__ = ["read_fairseq", "write_fairseq"]

UTTERANCES, TSV, KM, DICTIONARY = "utterances.jsonl", "tokens.tsv", "tokens.km", "dict.km.txt"


def write_fairseq(folder: Path, records: Iterable[Record], header: Header) -> list[Path]:
    """Write the manifest, the codes and the dictionary.

    Raises ``ExportError`` for a name that a .tsv cannot hold, and for paths that are neither all absolute nor all
    relative.
    """
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
            if record.file_name.startswith("/") != absolute:
                raise ExportError(
                    f"{record.file_name!r}: a .tsv has one root, so paths must be all absolute or all relative"
                )
            try:
                tsv.write(manifest_line(record.file_name.removeprefix("/"), tokens.num_samples))
            except ShardError as error:
                raise ExportError(str(error)) from None
            utterances.write(utterance_line(record))
            km.write(codes_line(tokens, words))
    return paths


def read_fairseq(folder: Path, header: Header) -> Iterator[Record]:
    """The records of files of ``write_fairseq``."""
    rows = read_km(folder / TSV, folder / KM)
    for utterance, (path, samples, codes) in together(read_utterances(folder / UTTERANCES), rows, folder / TSV):
        tokens = Tokens(codes, header.codebooks[header.codebook], samples, header.grid)
        yield record_of({**utterance, "file_name": path}, {header.codebook: tokens})
