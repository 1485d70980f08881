"""File targets: write a token corpus in the formats that other tools read, and read it back."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from spintok.corpus.token_formats import Record
from spintok.data.labels.transcripts import Transcripts
from spintok.export.errors import ExportError
from spintok.export.folder import find_export, finish, writing
from spintok.export.formats import fairseq, gslm, jsonl, lhotse, npz, parquet, webdataset
from spintok.export.sidecar import check_file, describe_export, header_of, read_sidecar
from spintok.export.source import Header, open_source

__all__ = ["FILE_TARGETS", "ExportSummary", "FileTarget", "export_files", "read_export", "summary_of"]

FileTarget = Literal["slamkit", "s3tokenizer", "fairseq", "gslm", "npz", "parquet", "webdataset", "lhotse"]


@dataclass(frozen=True)
class Stream:
    """A target that consists of one set of files, which a killed run writes again from the start.

    Attributes:
        write: write all records to a folder and return the files.
        read: the records of a folder.
        dedup: the values of ``--dedup`` that the format holds without loss, the default first.
        data_files: the files that ``datasets.load_dataset`` opens.
    """

    write: Callable[[Path, Iterable[Record], Header], list[Path]]
    read: Callable[[Path, Header], Iterator[Record]]
    dedup: tuple[bool, ...]
    data_files: str


@dataclass(frozen=True)
class Sharded:
    """A target of shards, which a killed run resumes after the last complete one.

    Attributes:
        name: the name of shard ``index``, a format string.
        write: write the records of one shard.
        read: the records of one shard.
        dedup: the values of ``--dedup`` that the format holds without loss, the default first.
        files: the files of a shard; by default the shard itself.
    """

    name: str
    write: Callable[[Path, Sequence[Record], Header], None]
    read: Callable[[Path, Header], Iterator[Record]]
    dedup: tuple[bool, ...]
    files: Callable[[Path, Header], list[Path]] = lambda path, header: [path]

    @property
    def data_files(self) -> str:
        """A pattern of the names of all shards."""
        before, _, after = self.name.partition("{")
        return f"{before}*{after.partition('}')[2]}"


FILE_TARGETS: Mapping[FileTarget, Stream | Sharded] = {
    "slamkit": Stream(jsonl.write_slamkit, jsonl.read_slamkit, (True, False), jsonl.TOKENS),
    "s3tokenizer": Stream(jsonl.write_s3tokenizer, jsonl.read_s3tokenizer, (False,), jsonl.TOKENS),
    "fairseq": Stream(fairseq.write_fairseq, fairseq.read_fairseq, (False,), fairseq.KM),
    "gslm": Stream(gslm.write_gslm, gslm.read_gslm, (True, False), gslm.UNITS),
    "npz": Sharded("tokens-{:05d}.npz", npz.write_npz, npz.read_npz, (True, False)),
    "parquet": Sharded("tokens-{:05d}.parquet", parquet.write_parquet, parquet.read_parquet, (True, False)),
    "webdataset": Sharded("tokens-{:05d}.tar", webdataset.write_webdataset, webdataset.read_webdataset, (True, False)),
    "lhotse": Sharded(
        "shar/cuts.{:06d}.jsonl.gz", lhotse.CutWriter().write, lhotse.read_lhotse, (False,), lhotse.files_of
    ),
}


@dataclass
class ExportSummary:
    """What an export did.

    Attributes:
        utterances: the number of utterances in the whole export.
        tokens: the number of tokens of the first codebook, counted after de-duplication if the format stores runs.
        already: whether the complete export existed before, so that nothing was written.
        files: all files of the export.
        notes: one line for each thing that the user should know.
    """

    utterances: int = 0
    tokens: int = 0
    already: bool = False
    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def export_files(
    folders: Sequence[Path],
    output: Path,
    target: FileTarget,
    *,
    codebooks: Sequence[str] | None = None,
    dedup: bool | None = None,
    shard_size: int = 10_000,
    transcripts: Transcripts | None = None,
    skip_empty: bool = False,
    overwrite: bool = False,
) -> ExportSummary:
    """Write the corpus in ``folders`` to ``output`` in a public format. One shard is in memory at a time.

    Args:
        folders: token folders of one tokenizer, in the order of the corpus.
        output: a new folder, or one with an earlier run of the same export, whose complete shards are kept.
        target: the format.
        codebooks: names of the codebooks to write. By default all that the format can hold, which is one for
            slamkit, s3tokenizer, fairseq and gslm.
        dedup: write runs with durations, or one code per frame. By default what the format is used with.
        shard_size: utterances per shard, for npz, parquet, webdataset and lhotse.
        transcripts: the texts of the cuts, for lhotse.
        skip_empty: leave out utterances without tokens, which are an error otherwise.
        overwrite: delete an earlier export in ``output`` and write this one.

    Raises:
        ExportError: the input does not fit the target, or ``output`` holds something else.
    """
    kind = FILE_TARGETS[target]
    source = open_source(folders, codebooks)
    header = replace(source.header, dedup=_dedup(kind, target, dedup))
    if isinstance(kind, Stream):
        if codebooks is not None and len(codebooks) > 1:
            raise ExportError(f"{target} holds one codebook; name it with --codebook")
        header = replace(header, codebooks=dict(islice(header.codebooks.items(), 1)))
    if shard_size < 1:
        raise ExportError(f"a shard holds at least 1 utterance, got {shard_size}")
    options: dict[str, Any] = {
        "skip_empty": skip_empty,
        "shard_size": shard_size if isinstance(kind, Sharded) else None,
    }
    if transcripts is not None:
        if target != "lhotse":
            raise ExportError(f"{target} has no place for transcripts; lhotse and packed have")
        options["transcripts"] = transcripts.digest
    description = describe_export(header, target, source.state, options)
    if found := find_export(output, description, overwrite=overwrite):
        return summary_of(output, found)
    summary = ExportSummary()
    records = _counted(source.records(skip_empty=skip_empty), header, summary)
    with writing(output, description):
        if isinstance(kind, Stream):
            files = kind.write(output, records, header)
        else:
            write = kind.write
            if target == "lhotse":
                cuts = lhotse.CutWriter(transcripts)
                write = cuts.write
            files = list(_write_shards(kind, write, output, records, header, shard_size))
            if target == "lhotse":
                summary.notes += cuts.notes
        if not summary.utterances:
            raise ExportError(f"{folders[0]}: no utterances to export")
        summary.files = finish(
            output,
            description,
            files,
            data_files=kind.data_files,
            utterances=summary.utterances,
            tokens=summary.tokens,
        )
    return summary


def summary_of(folder: Path, sidecar: Mapping[str, Any]) -> ExportSummary:
    """The summary of a complete export that existed before."""
    files = [folder / name for name in sidecar["files"]]
    return ExportSummary(sidecar["utterances"], sidecar["tokens"], True, files)


def read_export(folder: Path) -> tuple[Header, Iterator[Record]]:
    """The header and the records of an export of ``export_files``, in order, with durations.

    Every file is checked against its SHA-256 before it is read.

    Raises:
        ExportError: the folder is not a complete export of a file target, or a file is damaged.
    """
    description = read_sidecar(folder)
    if description["target"] not in FILE_TARGETS:
        raise ExportError(f"{folder}: holds {description['target']}, which is not a file target")
    kind, header = FILE_TARGETS[description["target"]], header_of(description)
    files = [folder / name for name in description["files"]]
    if isinstance(kind, Stream):
        return header, _checked(folder, description, files, folder, lambda: kind.read(folder, header))
    shards = [path for path in files if fnmatchcase(path.relative_to(folder).as_posix(), kind.data_files)]

    def records() -> Iterator[Record]:
        # By number: the names of 100,000 shards and more do not sort.
        for path in sorted(shards, key=lambda path: (len(path.name), path.name)):
            parts = kind.files(path, header)
            yield from _checked(folder, description, parts, path, lambda path=path: kind.read(path, header))  # type: ignore[misc]

    return header, records()


def _checked(
    folder: Path,
    description: Mapping[str, Any],
    files: Sequence[Path],
    what: Path,
    read: Callable[[], Iterator[Record]],
) -> Iterator[Record]:
    """The records that ``read`` gives, after checking its files; whatever damage it meets is an ``ExportError``."""
    for path in files:
        check_file(folder, description, path)
    try:
        yield from read()
    except ExportError:
        raise
    except Exception as error:
        # Each format is read by another library, which raises its own exceptions.
        message = " ".join(str(error).split()) or type(error).__name__
        raise ExportError(f"{what}: damaged ({message})") from None


def _dedup(kind: Stream | Sharded, target: str, wanted: bool | None) -> bool:
    if wanted is None:
        return kind.dedup[0]
    if wanted not in kind.dedup:
        raise ExportError(f"{target} holds one code per frame: durations would be lost; leave out --dedup")
    return wanted


def _counted(records: Iterable[Record], header: Header, summary: ExportSummary) -> Iterator[Record]:
    for record in records:
        tokens = record.tokens[header.codebook]
        summary.utterances += 1
        summary.tokens += tokens.units.size if header.dedup else tokens.num_frames
        yield record


def _write_shards(
    kind: Sharded,
    write: Callable[[Path, Sequence[Record], Header], None],
    output: Path,
    records: Iterable[Record],
    header: Header,
    shard_size: int,
) -> Iterator[Path]:
    remaining = iter(records)
    index = 0
    while shard := list(islice(remaining, shard_size)):
        path = output / kind.name.format(index)
        if not path.exists():
            try:
                write(path, shard, header)
            except UnicodeEncodeError:
                name = next(name for record in shard for name in _names(record) if not _is_utf8(name))
                raise ExportError(f"{name!r}: this format cannot hold names that are not UTF-8") from None
        yield from kind.files(path, header)
        index += 1


def _names(record: Record) -> tuple[str, str, str]:
    return record.key, record.file_name, record.speaker or ""


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
