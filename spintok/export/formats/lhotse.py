"""Lhotse cuts with codes, in the Shar layout: ``CutSet.from_shar(in_dir="OUT/shar")``.

Each cut has the recording with its own rate and channels, a supervision with speaker and text where known, and
``codes`` (and ``auxiliary_codes``), one per frame, as an array that Lhotse truncates together with the cut. The shards
are in a folder of their own, because Lhotse takes every file beside them for a shard. Audio that Lhotse cannot open
where it is, such as members of tar files, is there too.
"""

import io
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spintok._files import atomic, require
from spintok.corpus.token_formats import Record
from spintok.data.labels.transcripts import Transcripts
from spintok.export.errors import ExportError
from spintok.export.formats.columns import only, record_of
from spintok.export.formats.lhotse_audio import CutAudio, cut_audio
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
        self._copied = self._bytes = self._addresses = 0

    @property
    def notes(self) -> list[str]:
        """What the user should know, a line each."""
        found = []
        if self.unread:
            found.append(
                f"{len(self.unread)} audio files could not be opened, such as {self.unread[0]!r}: their cuts say "
                f"{SAMPLE_RATE} Hz and one channel, and Lhotse may not find the audio"
            )
        if self._copied:
            found.append(
                f"{self._copied} recordings ({self._bytes / 1e6:.1f} MB) were copied to the Shar folder, since Lhotse "
                "cannot open them where they are"
            )
        if self._addresses:
            found.append(f"{self._addresses} cuts name addresses, which Lhotse opens if smart_open is installed")
        return found

    def write(self, path: Path, records: Sequence[Record], header: Header) -> None:
        """Write one shard: the codes in a tar, then the cuts at ``path``, ``cuts.000000.jsonl.gz``."""
        shar = _lhotse("lhotse.shar")
        fields = {_field(name): "numpy" for name in header.codebooks}
        number = path.name.split(".")[1]
        path.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent.parent, prefix=".", suffix=".tmp") as scratch:
            with (
                shar.SharWriter(
                    scratch, fields, shard_size=len(records), shard_offset=int(number), warn_unused_fields=False
                ) as writer,
                _Copies(path, Path(scratch)) as copies,
            ):
                for record in records:
                    audio = self._audio(record)
                    cut = self._cut(record, header, audio)
                    writer.write(cut)
                    copies.add(record, cut, audio)
            for target in (*_tars(path, header), _recordings(path), path):
                if (made := Path(scratch, target.name)).exists():
                    with atomic(target) as temporary:
                        shutil.copyfile(made, temporary)

    def _audio(self, record: Record) -> CutAudio | None:
        try:
            audio = cut_audio(record.file_name)
            self._copied += audio.content is not None
            self._bytes += len(audio.content or b"")
            self._addresses += audio.kind == "url"
            return audio
        except (OSError, RuntimeError, ValueError):
            samples = next(iter(record.tokens.values())).num_samples
            if samples is None:
                return None
            self.unread.append(record.file_name)
            return CutAudio(SAMPLE_RATE, samples, 1, "file", record.file_name)

    def _cut(self, record: Record, header: Header, audio: CutAudio | None) -> Any:
        lhotse, kinds = _lhotse("lhotse"), _lhotse("lhotse.cut")
        tokens = only(record, header)
        recording = None if audio is None else _recording(record.key, audio)
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


class _Copies:
    """The tar with the audio of a shard that Lhotse cannot open elsewhere; if one shard has it, all have.

    Args:
        path: the path of the shard.
        folder: where the tar is made.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self._made = folder / _recordings(path).name
        self._first = _recordings(path.with_name("cuts.000000.jsonl.gz"))
        self._is_first = self._first == _recordings(path)
        self._tar: Any = None
        self._earlier: list[str] = []

    def __enter__(self) -> "_Copies":
        if self._first.exists() and not self._is_first:
            self._open()
        return self

    def __exit__(self, *_: object) -> None:
        if self._tar is not None:
            self._tar.close()

    def add(self, record: Record, cut: Any, audio: CutAudio | None) -> None:
        """Add a cut, in the order of the cuts. Raises ``ExportError`` if the shards before this one have no audio."""
        if audio is None or audio.content is None:
            self._earlier.append(record.key)
            if self._tar is not None:
                self._open()
            return
        if self._tar is None and not self._is_first:
            raise ExportError(
                f"{record.file_name}: Lhotse cannot open it, and the shards before it have no copies of audio; name "
                "the token folder of such audio first, or export it alone"
            )
        self._open()
        self._tar.write(f"{record.key}{audio.name}", io.BytesIO(audio.content))
        self._tar.write(f"{record.key}.json", io.BytesIO(json.dumps(cut.recording.to_dict()).encode()), count=False)

    def _open(self) -> None:
        """Open the tar, with a place for each cut so far that has no audio in it."""
        if self._tar is None:
            self._tar = _lhotse("lhotse.shar.writers.tar").TarWriter(str(self._made), shard_size=None)
        for key in self._earlier:
            self._tar.write(f"{key}.nodata", io.BytesIO())
            self._tar.write(f"{key}.nometa", io.BytesIO(), count=False)
        self._earlier = []


def _recording(key: str, audio: CutAudio) -> Any:
    """The recording as its file has it; Lhotse truncates no cut without one."""
    channels = list(range(audio.channels))
    source = _lhotse("lhotse.audio").AudioSource(audio.kind, channels, audio.source)
    return _lhotse("lhotse").Recording(
        key, [source], audio.rate, audio.samples, audio.samples / audio.rate, channel_ids=channels
    )


def files_of(path: Path, header: Header) -> list[Path]:
    """The files of the shard whose cuts are at ``path``; the cuts come last."""
    return [*_tars(path, header), *(file for file in [_recordings(path)] if file.exists()), path]


def _tars(path: Path, header: Header) -> list[Path]:
    number = path.name.split(".")[1]
    return [path.with_name(f"{_field(name)}.{number}.tar") for name in header.codebooks]


def _recordings(path: Path) -> Path:
    return path.with_name(f"recording.{path.name.split('.')[1]}.tar")


def read_lhotse(path: Path, header: Header) -> Iterator[Record]:
    """The records of a shard. Raises ``ExportError`` if a cut has the fingerprint of another tokenizer."""
    files = [*_tars(path, header), path]
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
