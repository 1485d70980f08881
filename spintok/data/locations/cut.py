"""Parts of recordings, such as Lhotse's cuts, read without cutting the files."""

from dataclasses import dataclass
from pathlib import Path

from spintok.data.locations.base import LocalAudio, Location, Recent, Source, Span
from spintok.data.locations.remote import file_source

__all__ = ["Cut"]

_RECORDINGS = Recent[LocalAudio](4)
"""Copies of recordings that are elsewhere: the cuts of one usually follow each other."""


@dataclass(frozen=True)
class Cut(Location):
    """A part of a recording."""

    recording: Path | Location
    span: Span

    @property
    def suffix(self) -> str:
        return self.recording.suffix.lower()

    def __str__(self) -> str:
        span = self.span
        numbers = [repr(span.start), repr(span.duration), *map(str, span.channels or ())]
        return f"cut://{','.join(numbers)}::{self.recording}"

    def source(self) -> Source:
        if isinstance(self.recording, Path):
            return file_source(self.recording)
        return self.recording.source()

    def local(self) -> LocalAudio:
        if isinstance(self.recording, Path):
            return LocalAudio(str(self.recording), self.suffix, self.span)
        whole = _RECORDINGS.get((str(self.recording), self.source()), self.recording.local)
        return LocalAudio(whole.path, whole.suffix, self.span, whole.copy)
