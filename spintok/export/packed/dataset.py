"""A token corpus as a training-ready data set: speech sequences in packed files, shuffled, split, cut into windows."""

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spintok.corpus.token_formats import Record
from spintok.data.transcripts import Transcripts
from spintok.export.bpe import UnitBpe
from spintok.export.errors import ExportError
from spintok.export.folder import begin, describe_export, finish, header_of, read_sidecar
from spintok.export.formats.columns import only, record_of, utterance_line
from spintok.export.packed.indexed import IdType, IndexedDataset, id_type, indexed_paths, indexed_writer
from spintok.export.packed.windows import Packer, Window, shuffled, split_of
from spintok.export.sequences.base import Form, TextEncoder, TokenSequence, read_speech, speech_only
from spintok.export.sequences.speech_text import speech_to_text, text_to_speech
from spintok.export.source import Header, open_source
from spintok.export.targets import ExportSummary
from spintok.export.vocabulary import VOCABULARY_FILE, Vocabulary
from spintok.tokens import Tokens

__all__ = ["SplitBy", "Task", "Windows", "export_packed", "read_packed"]

Task = Literal["speech", "asr", "tts"]
"""What a document is: ``speech_only``, ``speech_to_text`` or ``text_to_speech``."""

SplitBy = Literal["speaker", "file"]


SPEECH_MARKS = ("begin_speech", "end_speech")


class PackedDocument(NamedTuple):
    """An utterance on its way: where it goes, what is written, and what brings it back."""

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
    task: Task = "speech",
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
    """Write a sequence of every utterance into ``NAME.bin`` and ``NAME.idx``, the layout of ``IndexedDataset``.

    NAME is ``tokens``, or ``train`` and ``validation``. Without a window a document is an utterance; beside it lie
    ``NAME.durations`` (of the form "units") and ``NAME.utterances``, from which ``read_packed`` gives back the
    corpus. With a window each document is one window; ``NAME.loss`` and ``NAME.positions`` lie beside it, and
    ``Windows`` reads the three. ``vocabulary.spintok.json`` says what the ids mean.

    Args:
        folders: token folders of one tokenizer.
        output: a new folder, or one that an earlier run of the same export left: a whole export is kept, an
            unfinished one written again.
        vocabulary: of an extended tokenizer; by default ids are codes, and the special tokens follow them.
        codebook: the first one by default.
        task, transcripts, encode_text: "asr" and "tts" need the texts, and a vocabulary that has room for them.
        form: see ``Form``.
        bpe: shortens units; goes with the form "units".
        dtype: uint16 where it holds the vocabulary, uint32 otherwise.
        window: the length of fixed windows.
        shuffle: the seed of the documents' order; needs 8 bytes of memory each and room on disk for a second copy.
        split_by: whether the split goes by speaker or by file.
        validation: the share of speakers or files for ``validation``.
        skip_empty, overwrite: as in ``export_files``.
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
        raise ExportError(f"the validation share must lie in [0, 1], got {validation}")
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
    names = ["train", "validation"] if split_by else ["tokens"]
    description = describe_export(header, "packed", source.state, options)
    if begin(output, description, overwrite=overwrite):
        found = read_sidecar(output)
        return ExportSummary(found["utterances"], found["tokens"], True, [output / name for name in found["files"]])
    summary = ExportSummary()

    def items() -> Iterator[PackedDocument]:
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

    with tempfile.TemporaryDirectory(dir=output, prefix=".", suffix=".tmp") as scratch:
        ordered = items() if shuffle is None else _shuffled(items(), Path(scratch), kind, shuffle)
        if window is None:
            summary.files = _write_documents(output, names, ordered, kind, form == "units")
        else:
            summary.files = _write_windows(output, names, ordered, kind, window, vocabulary.special("end_speech"))
    if not summary.utterances:
        raise ExportError(f"{folders[0]}: no utterances to export")
    vocabulary.save(output / VOCABULARY_FILE)
    summary.files.append(output / VOCABULARY_FILE)
    if bpe is not None:
        summary.files += bpe.save(output / "bpe")
    finish(output, description, summary.files, utterances=summary.utterances, tokens=summary.tokens)
    return summary


def read_packed(folder: Path) -> tuple[Header, Iterator[Record]]:
    """The corpus of an ``export_packed`` without windows, training part first, durations included."""
    description = read_sidecar(folder)
    if description["target"] != "packed" or description["options"]["window"] is not None:
        raise ExportError(f"{folder}: not a packed export of whole utterances")
    header, form = header_of(description), description["options"]["form"]
    vocabulary = Vocabulary.load(folder)
    bpe = None if description["options"]["bpe"] is None else UnitBpe.load(folder / "bpe")
    names = ["train", "validation"] if description["options"]["split_by"] else ["tokens"]
    return header, (record for name in names for record in _read(folder / name, header, vocabulary, form, bpe))


class Windows:
    """The windows of an ``export_packed`` as a map-style data set for ``torch`` and ``transformers``.

    Item ``i`` is a dictionary of (L,) int64 arrays: ``input_ids``; ``labels``, -100 where the id does not count;
    ``position_ids``, 0 where a document begins: given these, no attention mask, and ``use_cache=False``, models of
    ``transformers`` keep documents apart.
    """

    def __init__(self, prefix: Path) -> None:
        self.ids, self.loss, self.positions = (
            IndexedDataset(_beside(prefix, part)) for part in ("", "loss", "positions")
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> dict[str, NDArray[np.int64]]:
        ids = self.ids[i].astype(np.int64)
        labels = np.where(self.loss[i] > 0, ids, -100)
        return {"input_ids": ids, "labels": labels, "position_ids": self.positions[i].astype(np.int64)}


def _vocabulary(header: Header, vocabulary: Vocabulary | None, bpe: UnitBpe | None, form: Form) -> Vocabulary:
    if bpe is not None:
        if bpe.fingerprint != header.fingerprint:
            raise ExportError("the BPE is of another tokenizer than the tokens")
        if not bpe.dedup or form != "units":
            raise ExportError("a BPE shortens de-duplicated units: train it with --dedup, and use the form units")
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


def _beside(prefix: Path, part: str) -> Path:
    return prefix.with_name(f"{prefix.name}.{part}") if part else prefix


def _shuffled(items: Iterable[PackedDocument], scratch: Path, kind: IdType, seed: int) -> Iterator[PackedDocument]:
    """The same items in an order of the seed's; they wait on disk."""
    types: list[IdType] = [kind, "uint8", "uint32", "uint8"]
    paths = [scratch / str(number) for number in range(len(types))]
    with ExitStack() as stack:
        ids, loss, durations, lines = (
            stack.enter_context(indexed_writer(path, dtype)) for path, dtype in zip(paths, types, strict=True)
        )
        for item in items:
            ids(item.document.ids)
            loss(item.document.loss_mask)
            durations(item.durations)
            lines(np.frombuffer(json.dumps([item.split, item.line]).encode(), dtype=np.uint8))
    waiting = [IndexedDataset(path) for path in paths]
    for i in shuffled(len(waiting[0]), seed).tolist():
        numbers, mask, runs, line = (packed[i] for packed in waiting)
        split, text = json.loads(line.tobytes())
        yield PackedDocument(
            split, TokenSequence(numbers.astype(np.int32), mask.astype(bool)), runs.astype(np.int32), text
        )


def _write_documents(
    output: Path, names: Sequence[str], items: Iterable[PackedDocument], kind: IdType, durations: bool
) -> list[Path]:
    types: dict[str, IdType] = {"": kind, "utterances": "uint8"}
    if durations:
        types["durations"] = "uint32"
    prefixes = {(name, part): _beside(output / name, part) for name in names for part in types}
    with ExitStack() as stack:
        write = {
            (name, part): stack.enter_context(indexed_writer(prefix, types[part]))
            for (name, part), prefix in prefixes.items()
        }
        for item in items:
            write[item.split, ""](item.document.ids)
            write[item.split, "utterances"](np.frombuffer(item.line.encode(), dtype=np.uint8))
            if durations:
                write[item.split, "durations"](item.durations)
    return [path for prefix in prefixes.values() for path in indexed_paths(prefix)]


def _write_windows(
    output: Path, names: Sequence[str], items: Iterable[PackedDocument], kind: IdType, length: int, pad: int
) -> list[Path]:
    types: dict[str, IdType] = {"": kind, "loss": "uint8", "positions": id_type(length)}
    prefixes = {(name, part): _beside(output / name, part) for name in names for part in types}
    with ExitStack() as stack:
        write = {
            (name, part): stack.enter_context(indexed_writer(prefix, types[part]))
            for (name, part), prefix in prefixes.items()
        }
        packers = {name: Packer(length, pad) for name in names}

        def put(name: str, windows: Iterable[Window]) -> None:
            for window in windows:
                write[name, ""](window.ids)
                write[name, "loss"](window.loss_mask)
                write[name, "positions"](window.positions)

        for item in items:
            put(item.split, packers[item.split].add(item.document))
        for name, packer in packers.items():
            put(name, packer.rest())
    return [path for prefix in prefixes.values() for path in indexed_paths(prefix)]


def _read(prefix: Path, header: Header, vocabulary: Vocabulary, form: Form, bpe: UnitBpe | None) -> Iterator[Record]:
    documents, lines = IndexedDataset(prefix), IndexedDataset(_beside(prefix, "utterances"))
    durations = IndexedDataset(_beside(prefix, "durations")) if form == "units" else None
    size = header.codebooks[header.codebook]
    for i, line in enumerate(lines):
        utterance = json.loads(line.tobytes())
        # With text, the speech is what stands between its marks.
        begin, end = (np.flatnonzero(documents[i] == vocabulary.special(role)) for role in SPEECH_MARKS)
        units, runs = read_speech(documents[i][begin[0] : end[-1] + 1], vocabulary, form)
        if bpe is not None:
            units = bpe.decode(units)
        if durations is not None:
            runs = durations[i]
        tokens = Tokens.from_runs(units, runs, size, utterance["num_samples"])
        yield record_of(utterance, {header.codebook: tokens})
