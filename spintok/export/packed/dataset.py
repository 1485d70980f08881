"""Write a token corpus as packed training data: one sequence per utterance, shuffled, split, cut into windows."""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spintok.corpus.token_formats import Record
from spintok.data.transcripts import Transcripts
from spintok.export.bpe import UnitBpe
from spintok.export.errors import ExportError
from spintok.export.folder import find_export, finish, writing
from spintok.export.formats.columns import only, utterance_line
from spintok.export.packed.indexed import IdType, IndexedDataset, id_type, indexed_paths, indexed_writer
from spintok.export.packed.windows import Packer, Window, shuffled, split_of
from spintok.export.sequences.base import Form, TextEncoder, TokenSequence, speech_only
from spintok.export.sequences.speech_text import speech_to_text, text_to_speech
from spintok.export.sidecar import describe_export
from spintok.export.source import Header, open_source
from spintok.export.targets import ExportSummary, summary_of
from spintok.export.vocabulary import VOCABULARY_FILE, Vocabulary

__all__ = ["DocumentTask", "PackedDocument", "SplitBy", "beside", "export_packed", "write_documents"]

DocumentTask = Literal["speech", "asr", "tts"]
"""The sequence of an utterance: ``speech_only``, ``speech_to_text`` or ``text_to_speech``."""

SplitBy = Literal["speaker", "file"]


class PackedDocument(NamedTuple):
    """One utterance to write.

    Attributes:
        split: the part that it belongs to: "tokens", "train" or "validation".
        document: its ids and loss mask.
        durations: of its runs, (R,), in frames.
        line: its metadata as a line of JSON.
    """

    split: str
    document: TokenSequence
    durations: NDArray[np.int32]
    line: str


def export_packed(
    folders: Sequence[Path],
    output: Path,
    *,
    vocabulary: Vocabulary | None = None,
    codebook: str | None = None,
    task: DocumentTask = "speech",
    transcripts: Transcripts | None = None,
    encode_text: TextEncoder | None = None,
    form: Form = "units",
    bpe: UnitBpe | None = None,
    dtype: IdType | None = None,
    window: int | None = None,
    shuffle: int | None = None,
    split_by: SplitBy | None = None,
    validation: float = 0.05,
    skip_empty: bool = False,
    overwrite: bool = False,
) -> ExportSummary:
    """Write one sequence per utterance as indexed datasets ``NAME.bin`` and ``NAME.idx``.

    NAME is ``tokens``, or ``train`` and ``validation``. Without ``window`` a document is an utterance, and
    ``NAME.utterances`` and, for the form "units", ``NAME.durations`` hold what ``read_packed`` needs to restore the
    corpus. With ``window`` a document is a window, and ``NAME.loss`` and ``NAME.positions`` hold its loss mask and
    positions, which ``Windows`` reads. ``vocabulary.spintok.json`` says what the ids mean.

    Args:
        folders: token folders of one tokenizer.
        output: a new folder, or one with an earlier run of the same export.
        vocabulary: of an extended tokenizer. By default ids are codes, followed by the special tokens.
        codebook: the name of the codebook to export; by default the first one.
        task: the kind of sequence.
        transcripts: the texts, for the tasks "asr" and "tts".
        encode_text: text to ids, for the tasks "asr" and "tts".
        form: how speech is written; see ``Form``.
        bpe: merge units into fewer ids; requires the form "units".
        dtype: of the ids; by default uint16 if the vocabulary fits, otherwise uint32.
        window: the number of ids in a window.
        shuffle: the seed of a random order; needs 8 bytes of memory per document, and disk space for a second copy.
        split_by: split into ``train`` and ``validation`` by speaker or by file.
        validation: the share of speakers or files in ``validation``.
        skip_empty: leave out utterances without tokens, which are an error otherwise.
        overwrite: delete an earlier export in ``output`` and write this one.

    Raises:
        ExportError: options that do not fit together or to the tokens, or ``output`` holds something else.
    """
    source = open_source(folders, None if codebook is None else [codebook])
    header = replace(source.header, dedup=form == "units")
    header = replace(header, codebooks={header.codebook: header.codebooks[header.codebook]})
    if task != "speech" and (transcripts is None or encode_text is None or vocabulary is None):
        raise ExportError(f"{task} needs transcripts, and the vocabulary of an extended tokenizer")
    vocabulary = _vocabulary(header, vocabulary, bpe, form)
    kind = id_type(vocabulary.size, dtype)
    if window is not None and window < 2:
        raise ExportError(f"a window needs at least 2 ids, got {window}")
    if not 0 <= validation <= 1:
        raise ExportError(f"the validation share must be in [0, 1], got {validation}")
    options: dict[str, Any] = {
        "vocabulary": vocabulary.to_dict(),
        "task": task,
        "transcripts": None if transcripts is None else transcripts.digest,
        "form": form,
        "bpe": None if bpe is None else bpe.identity,
        "dtype": kind,
        "window": window,
        "shuffle": shuffle,
        "split_by": split_by,
        "validation": validation if split_by else None,
        "skip_empty": skip_empty,
    }
    description = describe_export(header, "packed", source.state, options)
    if found := find_export(output, description, overwrite=overwrite):
        return summary_of(output, found)
    summary = ExportSummary()

    def documents() -> Iterator[PackedDocument]:
        for record in source.records(skip_empty=skip_empty):
            tokens = only(record, header)
            how = form if bpe is None else bpe
            if transcripts is None or encode_text is None:
                document = speech_only(tokens, vocabulary, how)
            else:
                build = speech_to_text if task == "asr" else text_to_speech
                document = build(tokens, transcripts.text(record.key), vocabulary, encode_text, form=how)
            summary.utterances += 1
            summary.tokens += len(document)
            split = "tokens" if split_by is None else _split(record, split_by, validation)
            yield PackedDocument(split, document, tokens.durations, utterance_line(record))

    with writing(output, description):
        names = ["train", "validation"] if split_by else ["tokens"]
        files = write_documents(
            output,
            documents(),
            names,
            kind,
            durations=form == "units",
            window=window,
            shuffle=shuffle,
            pad=vocabulary.special("end_speech"),
        )
        if not summary.utterances:
            raise ExportError(f"{folders[0]}: no utterances to export")
        vocabulary.save(output / VOCABULARY_FILE)
        files.append(output / VOCABULARY_FILE)
        if bpe is not None:
            files += bpe.save(output / "bpe")
        summary.files = finish(
            output, description, files, data_files="*.bin", utterances=summary.utterances, tokens=summary.tokens
        )
    return summary


def write_documents(
    output: Path,
    documents: Iterable[PackedDocument],
    names: Sequence[str],
    kind: IdType,
    *,
    durations: bool,
    window: int | None,
    shuffle: int | None,
    pad: int,
) -> list[Path]:
    """Write documents as indexed datasets, and return their files.

    Args:
        output: the folder.
        documents: what to write.
        names: the possible values of ``PackedDocument.split``.
        kind: the data type of the ids.
        durations: also write the durations of whole documents.
        window: the number of ids in a window; None for whole documents.
        shuffle: the seed of a random order.
        pad: the id that fills the last window.
    """
    with tempfile.TemporaryDirectory(dir=output, prefix=".", suffix=".tmp") as scratch:
        ordered = documents if shuffle is None else _shuffled(documents, Path(scratch), kind, shuffle)
        if window is None:
            return _write_whole(output, names, ordered, kind, durations)
        return _write_windows(output, names, ordered, kind, window, pad)


def beside(prefix: Path, part: str) -> Path:
    """The prefix of the indexed dataset ``part`` that belongs to the one at ``prefix``; itself for ""."""
    return prefix.with_name(f"{prefix.name}.{part}") if part else prefix


def _vocabulary(header: Header, vocabulary: Vocabulary | None, bpe: UnitBpe | None, form: Form) -> Vocabulary:
    """The vocabulary to write with: the given one, if it fits, or one of codes and special tokens only."""
    if bpe is not None:
        if bpe.fingerprint != header.fingerprint:
            raise ExportError("the BPE is of another tokenizer than the tokens")
        if not bpe.dedup or form != "units":
            raise ExportError("a BPE merges de-duplicated units: train it with --dedup, and use the form units")
    sizes = dict(header.codebooks) if bpe is None else {"bpe": bpe.size}
    fingerprint = header.fingerprint if bpe is None else bpe.identity
    if vocabulary is None:
        return Vocabulary(header.tokenizer, fingerprint, sizes)
    vocabulary.check(fingerprint)
    name, size = next(iter(sizes.items()))
    if vocabulary.codebooks.get(name) != size:
        raise ExportError(f"the vocabulary has no {size} tokens of {name!r}; it has {dict(vocabulary.codebooks)}")
    return vocabulary


def _split(record: Record, split_by: SplitBy, validation: float) -> str:
    if split_by == "file":
        return split_of(record.key, validation)
    if record.speaker is None:
        raise ExportError(f"{record.key!r}: its speaker is not known, so it cannot be split by speaker; use file")
    return split_of(record.speaker, validation)


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
    output: Path, names: Sequence[str], documents: Iterable[PackedDocument], kind: IdType, durations: bool
) -> list[Path]:
    parts: dict[str, IdType] = {"": kind, "utterances": "uint8"}
    if durations:
        parts["durations"] = "uint32"
    with ExitStack() as stack:
        files, write = _open(stack, output, names, parts)
        for item in documents:
            write[item.split, ""](item.document.ids)
            write[item.split, "utterances"](np.frombuffer(item.line.encode(), dtype=np.uint8))
            if durations:
                write[item.split, "durations"](item.durations)
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
