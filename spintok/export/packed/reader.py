"""Read packed training data: windows for a training loop, or the corpus that was packed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from spintok.corpus.token_formats import Record
from spintok.export.bpe import UnitBpe
from spintok.export.errors import ExportError
from spintok.export.formats.columns import record_of, tokens_of_runs
from spintok.export.packed.indexed import IndexedDataset, indexed_paths
from spintok.export.packed.packing import beside
from spintok.export.sequences.base import Form, read_speech
from spintok.export.sidecar import SIDECAR, check_file, header_of, read_sidecar
from spintok.export.source import Header
from spintok.export.vocabulary import Vocabulary

__all__ = ["Windows", "read_packed"]

SPEECH_MARKS = ("begin_speech", "end_speech")


class Windows:
    """The windows of ``export_packed`` as a map-style data set for ``torch`` and ``transformers``.

    Item ``i`` is a dictionary of (L,) int64 arrays: ``input_ids``; ``labels``, -100 where there is no loss; and
    ``position_ids``, which start at 0 in each document. With these, no attention mask, and ``use_cache=False``, models
    of ``transformers`` do not attend across documents.

    Args:
        prefix: the path of the dataset without ``.bin``, such as ``Path("out/train")``.
    """

    def __init__(self, prefix: Path) -> None:
        self.ids = IndexedDataset(prefix)
        self.loss = IndexedDataset(beside(prefix, "loss"))
        self.positions = IndexedDataset(beside(prefix, "positions"))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> dict[str, NDArray[np.int64]]:
        ids = self.ids[i].astype(np.int64)
        labels = np.where(self.loss[i] > 0, ids, -100)
        return {"input_ids": ids, "labels": labels, "position_ids": self.positions[i].astype(np.int64)}


def read_packed(folder: Path) -> tuple[Header, Iterator[Record]]:
    """The header and the records of ``export_packed`` without windows, those of ``train`` first, with durations.

    Raises:
        ExportError: the folder is not such an export, or a file is damaged.
    """
    description = read_sidecar(folder)
    options = {name: description["options"].get(name) for name in ("window", "form", "bpe", "split_by")}
    if description["target"] != "packed" or options["window"] is not None:
        raise ExportError(f"{folder}: not a packed export of whole utterances")
    header, form = header_of(description), options["form"]
    if form not in get_args(Form):
        raise ExportError(f"{folder / SIDECAR}: damaged (form is {form!r:.80})")
    for name in description["files"]:
        check_file(folder, description, folder / name)
    vocabulary = Vocabulary.load(folder)
    bpe = None if options["bpe"] is None else UnitBpe.load(folder / "bpe")
    names = ["train", "validation"] if options["split_by"] else ["tokens"]
    return header, (record for name in names for record in _records(folder / name, header, vocabulary, form, bpe))


def _records(prefix: Path, header: Header, vocabulary: Vocabulary, form: Form, bpe: UnitBpe | None) -> Iterator[Record]:
    documents, lines = IndexedDataset(prefix), IndexedDataset(beside(prefix, "utterances"))
    durations = IndexedDataset(beside(prefix, "durations")) if form == "units" else None
    try:
        for i, line in enumerate(lines):
            utterance = json.loads(line.tobytes())
            # In a document with text, the speech is between its marks.
            begin, end = (np.flatnonzero(documents[i] == vocabulary.special(role)) for role in SPEECH_MARKS)
            units, runs = read_speech(documents[i][begin[0] : end[-1] + 1], vocabulary, form)
            if bpe is not None:
                units = bpe.decode(units)
            if durations is not None:
                runs = durations[i]
            tokens = tokens_of_runs(units, runs, header, utterance["num_samples"])
            yield record_of(utterance, {header.codebook: tokens})
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise ExportError(f"{indexed_paths(prefix)[0]}: damaged ({error})") from None
