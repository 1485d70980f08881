"""Lhotse cuts with codes, in the Shar layout: ``CutSet.from_shar(in_dir="OUT/shar")``.

Each cut has the recording with its own rate and channels, a supervision with speaker and text where known, and
``codes`` (and ``auxiliary_codes``), one per frame, as an array that Lhotse truncates together with the cut. The shards
are in a folder of their own, because Lhotse takes every file beside them for a shard.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from spintok._files import atomic, require
from spintok.corpus.token_formats import Record
from spintok.data.labels.transcripts import Transcripts
from spintok.export.errors import ExportError
from spintok.export.formats.columns import only, record_of
from spintok.export.source import Header
from spintok.frames import SAMPLE_RATE, frames_to_seconds
from spintok.tokens import Tokens

__all__ = ["CutWriter", "files_of", "read_lhotse"]


class CutWriter:
    """Write shards of cuts.

    Args:
        transcripts: the texts of the supervisions; every utterance needs one.
    """

    def __init__(self, transcripts: Transcripts | None = None) -> None:
        self.transcripts = transcripts
        self.unread: list[str] = []
        """Audio files that could not be opened."""

    @property
    def notes(self) -> list[str]:
        """What the user should know, a line each."""
        if not self.unread:
            return []
        return [
            f"{len(self.unread)} audio files could not be opened, such as {self.unread[0]!r}: their cuts say "
            f"{SAMPLE_RATE} Hz and one channel, and Lhotse may not find the audio"
        ]

    def write(self, path: Path, records: Sequence[Record], header: Header) -> None:
        """Write one shard: the codes in a tar, then the cuts at ``path``, ``cuts.000000.jsonl.gz``."""
        shar = _lhotse("lhotse.shar")
        fields = {_field(name): "numpy" for name in header.codebooks}
        number = path.name.split(".")[1]
        path.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent.parent, prefix=".", suffix=".tmp") as scratch:
            with shar.SharWriter(
                scratch, fields, shard_size=len(records), shard_offset=int(number), warn_unused_fields=False
            ) as writer:
                for record in records:
                    writer.write(self._cut(record, header))
            for target in files_of(path, header):
                with atomic(target) as temporary:
                    shutil.copyfile(Path(scratch, target.name), temporary)

    def _cut(self, record: Record, header: Header) -> Any:
        lhotse, kinds = _lhotse("lhotse"), _lhotse("lhotse.cut")
        tokens = only(record, header)
        recording = self._recording(record, tokens)
        channels = [0] if recording is None else recording.channel_ids
        channel = channels[0] if len(channels) == 1 else channels
        # The cut lasts as long as its frames, so that loading its codes gives all of them.
        seconds = frames_to_seconds(tokens.num_frames, tokens.grid)
        cut = (kinds.MonoCut if len(channels) == 1 else kinds.MultiCut)(
            id=record.key, start=0.0, duration=seconds, channel=channel, recording=recording
        )
        text = None if self.transcripts is None else self.transcripts.text(record.key)
        if text is not None or record.speaker is not None:
            cut.supervisions = [
                lhotse.SupervisionSegment(
                    record.key, record.key, 0.0, seconds, channel=channel, text=text, speaker=record.speaker
                )
            ]
        for name in header.codebooks:
            codes = record.tokens[name].codes
            cut = cut.attach_tensor(_field(name), codes, frame_shift=frames_to_seconds(1, tokens.grid), temporal_dim=0)
        cut.custom.update(
            {
                "key": record.key,
                "file_name": record.file_name,
                "speaker": record.speaker,
                "num_samples": tokens.num_samples,
                "tokenizer": header.tokenizer,
                "fingerprint": header.fingerprint,
            }
        )
        return cut

    def _recording(self, record: Record, tokens: Tokens) -> Any:
        """The recording as its file has it; Lhotse truncates no cut without one."""
        try:
            info = soundfile.info(record.file_name)
            rate, samples, channels = info.samplerate, info.frames, info.channels
        except (OSError, RuntimeError, ValueError):
            if tokens.num_samples is None:
                return None
            self.unread.append(record.file_name)
            rate, samples, channels = SAMPLE_RATE, tokens.num_samples, 1
        source = _lhotse("lhotse.audio").AudioSource("file", list(range(channels)), record.file_name)
        return _lhotse("lhotse").Recording(
            record.key, [source], rate, samples, samples / rate, channel_ids=list(range(channels))
        )


def files_of(path: Path, header: Header) -> list[Path]:
    """The files of the shard whose cuts are at ``path``; the cuts come last."""
    number = path.name.split(".")[1]
    return [*(path.with_name(f"{_field(name)}.{number}.tar") for name in header.codebooks), path]


def read_lhotse(path: Path, header: Header) -> Iterator[Record]:
    """The records of a shard. Raises ``ExportError`` if a cut has the fingerprint of another tokenizer."""
    files = files_of(path, header)
    fields = dict(zip([_field(name) for name in header.codebooks] + ["cuts"], [[str(f)] for f in files], strict=True))
    for cut in _lhotse("lhotse").CutSet.from_shar(fields=fields):
        if cut.custom["fingerprint"] != header.fingerprint:
            raise ExportError(f"{path}: holds tokens of another tokenizer than its folder")
        tokens = {
            name: Tokens(np.asarray(cut.load_custom(_field(name))), size, cut.custom["num_samples"], header.grid)
            for name, size in header.codebooks.items()
        }
        utterance = {name: cut.custom[name] for name in ("key", "file_name", "speaker")}
        yield record_of(utterance, tokens)


def _lhotse(module: str) -> Any:
    return require(module, extra="export", purpose="--to lhotse")


def _field(codebook: str) -> str:
    return "codes" if codebook == "primary" else f"{codebook}_codes"
