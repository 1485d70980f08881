"""Lhotse cuts with codes, in Lhotse's own Shar layout: ``CutSet.from_shar(in_dir="OUT/shar")``.

The shards have a folder of their own, because Lhotse takes every file beside them for one.
Each cut has ``codes`` (and ``auxiliary_codes``), one a frame, as an array that Lhotse cuts in time with the cut.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from spintok._files import atomic
from spintok.corpus.token_formats import Record
from spintok.export.errors import ExportError
from spintok.export.formats.columns import only, record_of
from spintok.export.optional import optional
from spintok.export.source import Header
from spintok.frames import SAMPLE_RATE, frames_to_seconds
from spintok.tokens import Tokens

__all__ = ["files_of", "read_lhotse", "write_lhotse"]


def files_of(path: Path, header: Header) -> list[Path]:
    """The files of the shard whose cuts are at ``path``, ``cuts.000000.jsonl.gz``; the cuts come last."""
    number = path.name.split(".")[1]
    return [*(path.with_name(f"{_field(name)}.{number}.tar") for name in header.codebooks), path]


def write_lhotse(path: Path, records: Sequence[Record], header: Header) -> None:
    """Write one shard: the cuts at ``path``, the codes in a tar beside it. The cuts appear last."""
    shar, cut = optional("lhotse.shar"), optional("lhotse.cut")
    fields = {_field(name): "numpy" for name in header.codebooks}
    number = path.name.split(".")[1]
    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent.parent, prefix=".", suffix=".tmp") as scratch:
        with shar.SharWriter(
            scratch, fields, shard_size=len(records), shard_offset=int(number), warn_unused_fields=False
        ) as writer:
            for record in records:
                writer.write(_cut(record, header, cut.MonoCut))
        for target in files_of(path, header):
            with atomic(target) as temporary:
                shutil.copyfile(Path(scratch, target.name), temporary)


def read_lhotse(path: Path, header: Header) -> Iterator[Record]:
    """What ``write_lhotse`` wrote. Raises ``ExportError`` when a cut states another tokenizer."""
    files = files_of(path, header)
    fields = dict(zip([_field(name) for name in header.codebooks] + ["cuts"], [[str(f)] for f in files], strict=True))
    for cut in optional("lhotse").CutSet.from_shar(fields=fields):
        if cut.custom["fingerprint"] != header.fingerprint:
            raise ExportError(f"{path}: holds tokens of another tokenizer than its folder")
        tokens = {
            name: Tokens(np.asarray(cut.load_custom(_field(name))), size, cut.custom["num_samples"])
            for name, size in header.codebooks.items()
        }
        utterance = {"key": cut.custom["key"], "file_name": cut.custom["file_name"], "speaker": cut.custom["speaker"]}
        yield record_of(utterance, tokens)


def _cut(record: Record, header: Header, mono_cut: type) -> object:
    tokens = only(record, header)
    recording = None
    if tokens.num_samples is not None:
        # Lhotse cuts nothing without a recording. Its audio is read by nobody here, so its rate is the tokenizer's.
        source = optional("lhotse.audio").AudioSource("file", [0], record.file_name)
        seconds = tokens.num_samples / SAMPLE_RATE
        recording = optional("lhotse").Recording(record.key, [source], SAMPLE_RATE, tokens.num_samples, seconds)
    # The cut lasts as long as its frames, so that loading its codes takes all of them.
    seconds = frames_to_seconds(tokens.num_frames)
    cut = mono_cut(id=record.key, start=0.0, duration=seconds, channel=0, recording=recording)
    custom = {
        "key": record.key,
        "file_name": record.file_name,
        "speaker": record.speaker,
        "num_samples": tokens.num_samples,
        "tokenizer": header.tokenizer,
        "fingerprint": header.fingerprint,
    }
    for name in header.codebooks:
        cut = cut.attach_tensor(
            _field(name), record.tokens[name].codes, frame_shift=frames_to_seconds(1), temporal_dim=0
        )
    cut.custom.update(custom)
    return cut


def _field(codebook: str) -> str:
    return "codes" if codebook == "primary" else f"{codebook}_codes"
