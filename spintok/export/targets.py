"""File targets: a token corpus to the formats that other tools read, and back."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from spintok.corpus.token_formats import Record
from spintok.export.errors import ExportError
from spintok.export.folder import begin, describe_export, finish, header_of, read_sidecar
from spintok.export.formats import fairseq, gslm, jsonl, lhotse, npz, parquet, webdataset
from spintok.export.source import Header, open_source

__all__ = ["FILE_TARGETS", "ExportSummary", "FileTarget", "export_files", "read_export"]

FileTarget = Literal["slamkit", "s3tokenizer", "fairseq", "gslm", "npz", "parquet", "webdataset", "lhotse"]


@dataclass(frozen=True)
class Stream:
    """A target that is one set of files, written from end to end: after a crash it is written again."""

    write: Callable[[Path, Iterable[Record], Header], list[Path]]
    read: Callable[[Path, Header], Iterator[Record]]
    dedup: tuple[bool, ...]


@dataclass(frozen=True)
class Sharded:
    """A target of shards, each whole or absent: after a crash it goes on."""

    name: str
    write: Callable[[Path, Sequence[Record], Header], None]
    read: Callable[[Path, Header], Iterator[Record]]
    dedup: tuple[bool, ...]
    files: Callable[[Path, Header], list[Path]] = lambda path, header: [path]


# The settings of --dedup that a format can hold without loss, its own custom first.
FILE_TARGETS: Mapping[FileTarget, Stream | Sharded] = {
    "slamkit": Stream(jsonl.write_slamkit, jsonl.read_slamkit, (True, False)),
    "s3tokenizer": Stream(jsonl.write_s3tokenizer, jsonl.read_s3tokenizer, (False,)),
    "fairseq": Stream(fairseq.write_fairseq, fairseq.read_fairseq, (False,)),
    "gslm": Stream(gslm.write_gslm, gslm.read_gslm, (True, False)),
    "npz": Sharded("tokens-{:05d}.npz", npz.write_npz, npz.read_npz, (True, False)),
    "parquet": Sharded("tokens-{:05d}.parquet", parquet.write_parquet, parquet.read_parquet, (True, False)),
    "webdataset": Sharded("tokens-{:05d}.tar", webdataset.write_webdataset, webdataset.read_webdataset, (True, False)),
    "lhotse": Sharded("shar/cuts.{:06d}.jsonl.gz", lhotse.write_lhotse, lhotse.read_lhotse, (False,), lhotse.files_of),
}


@dataclass
class ExportSummary:
    """What an export did.

    Attributes:
        utterances, tokens: in the whole export; tokens of the first codebook, after de-duplication where there is.
        already: whether the export lay there whole before.
        files: what was written.
    """

    utterances: int = 0
    tokens: int = 0
    already: bool = False
    files: list[Path] = field(default_factory=list)


def export_files(
    folders: Sequence[Path],
    output: Path,
    target: FileTarget,
    *,
    codebooks: Sequence[str] | None = None,
    dedup: bool | None = None,
    shard_size: int = 10_000,
    skip_empty: bool = False,
    overwrite: bool = False,
) -> ExportSummary:
    """Write the corpus in ``folders`` to ``output`` in a public format; memory is that of one shard.

    Args:
        folders: token folders of one tokenizer, in the order of the corpus.
        output: a new folder, or one that an earlier run of the same export left: shards that are there are kept.
        target: the format.
        codebooks: those to write; by default all where the format has room, the first one in text formats.
        dedup: runs with durations, or a code a frame; by default the format's custom.
        shard_size: utterances a shard, for the formats with shards.
        skip_empty: leave out utterances without tokens, which are an error otherwise.
        overwrite: begin anew, deleting the earlier export.

    Raises:
        ExportError: the input does not fit the target, or ``output`` holds something else. What was written by then
            is not taken for an export.
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
    options = {"skip_empty": skip_empty, "shard_size": shard_size if isinstance(kind, Sharded) else None}
    description = describe_export(header, target, source.state, options)
    if begin(output, description, overwrite=overwrite):
        found = read_sidecar(output)
        return ExportSummary(found["utterances"], found["tokens"], True, [output / name for name in found["files"]])
    summary = ExportSummary()
    records = _counted(source.records(skip_empty=skip_empty), header, summary)
    if isinstance(kind, Stream):
        summary.files = kind.write(output, records, header)
    else:
        summary.files = list(_write_shards(kind, output, records, header, shard_size))
    if not summary.utterances:
        raise ExportError(f"{folders[0]}: no utterances to export")
    finish(output, description, summary.files, utterances=summary.utterances, tokens=summary.tokens)
    return summary


def read_export(folder: Path) -> tuple[Header, Iterator[Record]]:
    """Whose tokens an export of ``export_files`` holds, and its utterances in order: what went in, durations included.

    Raises ``ExportError`` for a folder that is not a whole export of a file target.
    """
    description = read_sidecar(folder)
    if description["target"] not in FILE_TARGETS:
        raise ExportError(f"{folder}: holds {description['target']}, which is not a file target")
    kind, header = FILE_TARGETS[description["target"]], header_of(description)
    if isinstance(kind, Stream):
        return header, kind.read(folder, header)
    count = -(-description["utterances"] // description["options"]["shard_size"])
    paths = [folder / kind.name.format(index) for index in range(count)]
    return header, (record for path in paths for record in kind.read(path, header))


def _dedup(kind: Stream | Sharded, target: str, wanted: bool | None) -> bool:
    if wanted is None:
        return kind.dedup[0]
    if wanted not in kind.dedup:
        raise ExportError(f"{target} holds a code a frame: durations would be lost; leave --dedup out")
    return wanted


def _counted(records: Iterable[Record], header: Header, summary: ExportSummary) -> Iterator[Record]:
    for record in records:
        tokens = record.tokens[header.codebook]
        summary.utterances += 1
        summary.tokens += tokens.units.size if header.dedup else tokens.num_frames
        yield record


def _write_shards(
    kind: Sharded, output: Path, records: Iterable[Record], header: Header, shard_size: int
) -> Iterator[Path]:
    waiting = iter(records)
    index = 0
    while shard := list(islice(waiting, shard_size)):
        path = output / kind.name.format(index)
        if not path.exists():
            kind.write(path, shard, header)
        yield from kind.files(path, header)
        index += 1
