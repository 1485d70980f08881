"""How Lhotse gets the audio of a cut: from the file, from an address that it can open, or out of the Shar folder."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import soundfile

from spintok.data.locations.addresses import local_audio, located
from spintok.data.locations.base import Span
from spintok.data.locations.remote import RemoteFile

__all__ = ["CutAudio", "cut_audio"]

_OPENED = ("http", "https", "s3", "gs")
"""Protocols that Lhotse opens by smart_open, which the user installs for it."""

_HEADED = (".wav", ".flac")
"""Endings of files that tell their layout in the first bytes, and that can be read from any sample on."""


@dataclass(frozen=True)
class CutAudio:
    """The audio of a cut.

    Attributes:
        rate: samples a second, as the file has them.
        samples: the number of samples of each channel.
        channels: how many.
        kind: the type of Lhotse's ``AudioSource``.
        source: what ``AudioSource`` names; "" if the Shar folder holds the audio.
        name: the ending of the file in the Shar folder.
        content: the content of that file; None if there is none.
    """

    rate: int
    samples: int
    channels: int
    kind: Literal["file", "url", "shar"]
    source: str = ""
    name: str = ""
    content: bytes | None = None


def cut_audio(address: str) -> CutAudio:
    """Look up or copy the audio of an utterance.

    What is packed, and what only spintok opens, is copied as it is. Parts of recordings are copied without loss, since
    the cuts of a Shar folder begin where their audio does.

    Raises:
        OSError, RuntimeError, ValueError: it cannot be read.
    """
    found = located(address)
    if isinstance(found, Path):
        return _described(soundfile.info(address), "file", address)
    if isinstance(found, RemoteFile) and found.url.partition("://")[0] in _OPENED:
        if found.suffix in _HEADED and not found.url.startswith("http"):
            with found.open() as stream:
                return _described(soundfile.info(stream), "url", address)
        audio = local_audio(address)
        return _described(soundfile.info(audio.path), "url", address)
    audio = local_audio(address)
    if audio.span is not None:
        return _part(audio.path, audio.suffix, audio.span)
    info = soundfile.info(audio.path)
    content = Path(audio.path).read_bytes()
    return CutAudio(info.samplerate, info.frames, info.channels, "shar", name=audio.suffix or ".audio", content=content)


def _described(info: Any, kind: Literal["file", "url"], source: str) -> CutAudio:
    return CutAudio(info.samplerate, info.frames, info.channels, kind, source)


def _part(path: str, suffix: str, span: Span) -> CutAudio:
    with soundfile.SoundFile(path) as file:
        exact = file.subtype == "PCM_16"
        wanted = span.samples(file.samplerate)
        first = 0
        if suffix in _HEADED:
            first = file.seek(wanted.start)
        # Other decoders do not give the same samples after a jump.
        read = file.read(wanted.stop - first, dtype="int16" if exact else "float32", always_2d=True)
        samples, rate = read[wanted.start - first :], file.samplerate
    if span.channels is not None:
        samples = samples[:, list(span.channels)]
    content = io.BytesIO()
    kind, subtype = ("flac", "PCM_16") if exact else ("wav", "FLOAT")
    soundfile.write(content, samples, rate, format=kind, subtype=subtype)
    count, channels = samples.shape
    return CutAudio(rate, count, channels, "shar", name=f".{kind}", content=content.getvalue())
