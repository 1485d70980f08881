"""Write documents as indexed datasets: shuffled, split into parts, cut into windows."""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spintok.export.errors import ExportError
from spintok.export.folder import find_export, finish, writing
from spintok.export.packed.indexed import IdType, IndexedDataset, id_type, indexed_paths, indexed_writer
from spintok.export.packed.windows import Packer, Window, shuffled, split_of
from spintok.export.sequences.base import TokenSequence
from spintok.export.targets import ExportSummary, summary_of
from spintok.export.vocabulary import VOCABULARY_FILE, Vocabulary

__all__ = ["PackedDocument", "Packing", "SplitBy", "beside", "pack_corpus", "write_documents"]

SplitBy = Literal["speaker", "file"]


class PackedDocument(NamedTuple):
    """One document to write.

    Attributes:
        split: the part that it belongs to: "tokens", "train" or "validation".
        document: its ids and loss mask.
        durations: the durations (R,) of its runs in frames; empty if they are not stored.
        line: its metadata as a line of JSON.
    """

    split: str
    document: TokenSequence
    durations: NDArray[np.int32]
    line: str


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How documents are stored.

    Attributes:
        dtype: the dtype of the ids; by default uint16 if the vocabulary fits, otherwise uint32.
        window: the number of ids in a window; None for whole documents.
        shuffle: the seed of a random order; needs 8 bytes of memory per document, and disk space for a second copy.
        split_by: split into ``train`` and ``validation`` by speaker or by file.
        validation: the share of speakers or files in ``validation``.

    Raises:
        ExportError: a window or a share that is out of range.
    """

    dtype: IdType | None = None
    window: int | None = None
    shuffle: int | None = None
    split_by: SplitBy | None = None
    validation: float = 0.05

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 2:
            raise ExportError(f"a window needs at least 2 ids, got {self.window}")
        if not 0 <= self.validation <= 1:
            raise ExportError(f"the validation share must be in [0, 1], got {self.validation}")

    @property
    def names(self) -> list[str]:
        """The parts, which are the possible values of ``PackedDocument.split``."""
        return ["train", "validation"] if self.split_by else ["tokens"]

    def split(self, key: str, speaker: str | None) -> str:
        """The part for an utterance. Raises ``ExportError`` if it needs the speaker, who is not known."""
        if self.split_by is None:
            return "tokens"
        if self.split_by == "file":
            return split_of(key, self.validation)
        if speaker is None:
            raise ExportError(f"{key!r}: its speaker is not known, so it cannot be split by speaker; use file")
        return split_of(speaker, self.validation)

    def describe(self, kind: IdType) -> dict[str, Any]:
        """The options for the sidecar; ``kind`` is the data type that ``dtype`` led to."""
        return {
            "dtype": kind,
            "window": self.window,
            "shuffle": self.shuffle,
            "split_by": self.split_by,
            "validation": self.validation if self.split_by else None,
        }


def pack_corpus(
    output: Path,
    description: Mapping[str, Any],
    documents: Iterable[PackedDocument],
    vocabulary: Vocabulary,
    packing: Packing,
    *,
    durations: bool = False,
    loss: bool = False,
    extra: Callable[[], list[Path]] = list,
    overwrite: bool = False,
) -> ExportSummary:
    """Write documents and their vocabulary as a complete export.

    Args:
        output: the folder.
        description: the description of the export, from ``describe_export``.
        documents: what to write; not read if the export exists.
        vocabulary: the vocabulary of the ids.
        packing: how to write it.
        durations: also write the durations of whole documents.
        loss: also write the loss masks of whole documents; those of windows are always written.
        extra: writes further files, and returns them.
        overwrite: delete an earlier export.

    Raises:
        ExportError: there are no documents, or ``output`` holds something else.
    """
    if found := find_export(output, description, overwrite=overwrite):
        return summary_of(output, found)
    summary = ExportSummary()

    def counted() -> Iterator[PackedDocument]:
        for item in documents:
            summary.utterances += 1
            summary.tokens += len(item.document)
            yield item

    with writing(output, description):
        pad = vocabulary.special("end_speech")
        kind = id_type(vocabulary.size, packing.dtype)
        files = write_documents(output, counted(), packing, kind, pad=pad, durations=durations, loss=loss)
        if not summary.utterances:
            raise ExportError(f"{output}: there are no utterances to export")
        vocabulary.save(output / VOCABULARY_FILE)
        files += [output / VOCABULARY_FILE, *extra()]
        summary.files = finish(
            output,
            description,
            files,
            data_files=f"{packing.names[0]}.bin",
            utterances=summary.utterances,
            tokens=summary.tokens,
        )
    return summary


def write_documents(
    output: Path,
    documents: Iterable[PackedDocument],
    packing: Packing,
    kind: IdType,
    *,
    pad: int,
    durations: bool = False,
    loss: bool = False,
) -> list[Path]:
    """Write documents as indexed datasets, and return their files.

    Args:
        output: the folder.
        documents: what to write.
        packing: how to write it.
        kind: the data type of the ids.
        pad: the id that fills the last window.
        durations: also write the durations of whole documents.
        loss: also write the loss masks of whole documents.
    """
    with tempfile.TemporaryDirectory(dir=output, prefix=".", suffix=".tmp") as scratch:
        ordered = documents
        if packing.shuffle is not None:
            ordered = _shuffled(documents, Path(scratch), kind, packing.shuffle)
        if packing.window is None:
            return _write_whole(output, packing.names, ordered, kind, durations=durations, loss=loss)
        return _write_windows(output, packing.names, ordered, kind, packing.window, pad)


def beside(prefix: Path, part: str) -> Path:
    """The prefix of the indexed dataset ``part`` that belongs to the one at ``prefix``; itself for ""."""
    return prefix.with_name(f"{prefix.name}.{part}") if part else prefix


def _shuffled(documents: Iterable[PackedDocument], scratch: Path, kind: IdType, seed: int) -> Iterator[PackedDocument]:
    """The documents in a random order, by way of the disk."""
    types: list[IdType] = [kind, "uint8", "uint32", "uint8"]
    paths = [scratch / str(number) for number in range(len(types))]
    with ExitStack() as stack:
        ids, loss, durations, lines = (
            stack.enter_context(indexed_writer(path, dtype)) for path, dtype in zip(paths, types, strict=True)
        )
        for item in documents:
            ids(item.document.ids)
            loss(item.document.loss_mask)
            durations(item.durations)
            lines(np.frombuffer(json.dumps([item.split, item.line]).encode(), dtype=np.uint8))
    stored = [IndexedDataset(path) for path in paths]
    for i in shuffled(len(stored[0]), seed).tolist():
        numbers, mask, runs, line = (part[i] for part in stored)
        split, text = json.loads(line.tobytes())
        document = TokenSequence(numbers.astype(np.int32), mask.astype(bool))
        yield PackedDocument(split, document, runs.astype(np.int32), text)


def _write_whole(
    output: Path,
    names: Sequence[str],
    documents: Iterable[PackedDocument],
    kind: IdType,
    *,
    durations: bool,
    loss: bool,
) -> list[Path]:
    parts: dict[str, IdType] = {"": kind, "utterances": "uint8"}
    if durations:
        parts["durations"] = "uint32"
    if loss:
        parts["loss"] = "uint8"
    with ExitStack() as stack:
        files, write = _open(stack, output, names, parts)
        for item in documents:
            write[item.split, ""](item.document.ids)
            write[item.split, "utterances"](np.frombuffer(item.line.encode(), dtype=np.uint8))
            if durations:
                write[item.split, "durations"](item.durations)
            if loss:
                write[item.split, "loss"](item.document.loss_mask)
    return files


def _write_windows(
    output: Path, names: Sequence[str], documents: Iterable[PackedDocument], kind: IdType, length: int, pad: int
) -> list[Path]:
    with ExitStack() as stack:
        files, write = _open(stack, output, names, {"": kind, "loss": "uint8", "positions": id_type(length)})
        packers = {name: Packer(length, pad) for name in names}

        def put(name: str, windows: Iterable[Window]) -> None:
            for window in windows:
                write[name, ""](window.ids)
                write[name, "loss"](window.loss_mask)
                write[name, "positions"](window.positions)

        for item in documents:
            put(item.split, packers[item.split].add(item.document))
        for name, packer in packers.items():
            put(name, packer.rest())
    return files


def _open(
    stack: ExitStack, output: Path, names: Sequence[str], parts: dict[str, IdType]
) -> tuple[list[Path], dict[tuple[str, str], Callable[[ArrayLike], None]]]:
    """Open an indexed dataset for each name and part: their files, and the functions that append to them."""
    prefixes = {(name, part): beside(output / name, part) for name in names for part in parts}
    write = {
        (name, part): stack.enter_context(indexed_writer(prefix, parts[part]))
        for (name, part), prefix in prefixes.items()
    }
    return [path for prefix in prefixes.values() for path in indexed_paths(prefix)], write
