"""Audio of the formats that libsndfile cannot read, decoded by the ffmpeg program if there is one.

A process of its own decodes each file, so that a damaged file cannot crash this one. Samples arrive as a stream in
Sun's AU format, whose header states the rate and the channels.
"""

import os
import re
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from functools import cache
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "EXTENSIONS",
    "HEAD",
    "SHARED_EXTENSIONS",
    "FfmpegError",
    "begins_transport_stream",
    "blocks",
    "is_transport_stream",
    "program",
    "version",
]

EXTENSIONS = frozenset(
    {
        *(".3g2", ".3ga", ".3gp", ".aac", ".ac3", ".adts", ".alac", ".amr", ".ape", ".asf", ".avi", ".awb", ".divx"),
        *(".dts", ".eac3", ".f4a", ".f4v", ".flv", ".gsm", ".m2ts", ".m4a", ".m4b", ".m4r", ".m4v", ".mka", ".mkv"),
        *(".mov", ".mp4", ".mpc", ".mpeg", ".mpg", ".mts", ".ogm", ".ogv", ".ra", ".rm", ".rmvb", ".spx", ".tak"),
        *(".ts", ".tta", ".vob", ".weba", ".webm", ".wma", ".wmv", ".wv"),
    }
)
"""Endings of file names, in lower case."""

SHARED_EXTENSIONS = frozenset({".mts", ".ts"})
"""Endings of MPEG transport streams that TypeScript's source files have too."""

# Containers that hold audio themselves; playlists, which name other files and addresses, are not among them.
_DEMUXERS = "aac,ac3,amr,amrnb,amrwb,ape,asf,avi,dts,eac3,flv,gsm,matroska,mov,mpc,mpc8,mpeg,mpegts,ogg,rm,tak,tta,wv"

# Each message begins with the component and where it is in memory: "[aac @ 0x558ee2145e40] ".
_ADDRESS = re.compile(r"^(\[[^\]]*\] ?)+")

# Where the first packet begins, and the distance to the next: 192 with a time code of four bytes before each.
_PACKETS = ((0, 188), (4, 192))

HEAD = 4 + 192 + 1
"""Bytes at the beginning of a file that tell whether it is a transport stream."""

STALL_SECONDS = 120.0
"""Time without a block of audio after which a decoder is stopped."""


class FfmpegError(ValueError):
    """A file that ffmpeg cannot decode, or no ffmpeg; the message states the cause, without the file's name."""


def is_transport_stream(path: str | os.PathLike[str]) -> bool:
    """Return whether a file begins with packets of an MPEG transport stream, of 188 or 192 bytes.

    A file that cannot be read counts as one, so that it is listed as a failure.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return begins_transport_stream(file.read(HEAD))
    except OSError:
        return True


def begins_transport_stream(head: bytes) -> bool:
    """Return whether the first ``HEAD`` bytes of a file are those of a transport stream."""
    return any(head[start : start + 1] == head[start + size : start + size + 1] == b"G" for start, size in _PACKETS)


@cache
def program() -> str | None:
    """Return the path of ffmpeg: the one on PATH, or that of the package imageio-ffmpeg; None if there is none."""
    if found := shutil.which("ffmpeg"):
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return str(get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


@cache
def version() -> str | None:
    """Return the version of ffmpeg, such as ``ffmpeg 7.1``; None if there is none."""
    if (path := program()) is None:
        return None
    found = subprocess.run([path, "-version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    words = found.stdout.split()
    return f"ffmpeg {words[2]}" if words[:2] == ["ffmpeg", "version"] and len(words) > 2 else "ffmpeg"


def blocks(name: str | bytes, seconds: float) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the sample rate and consecutive blocks of ``seconds`` of the first audio stream, (samples, channels).

    Raises ``FfmpegError``, at the end if the file is damaged there.
    """
    if (path := program()) is None:
        raise FfmpegError(
            "this format needs FFmpeg, which is not installed: install ffmpeg, or pip install 'spintok[ffmpeg]'"
        )
    arguments = [path, "-nostdin", "-hide_banner", "-v", "error", "-xerror", "-err_detect", "explode"]
    arguments += ["-protocol_whitelist", "file", "-format_whitelist", _DEMUXERS]
    source = [b"-i", b"file:" + os.fsencode(name)]
    target = ["-map", "0:a:0", "-f", "au", "-c:a", "pcm_f32be", "pipe:1"]
    with TemporaryFile() as log:
        decoder = subprocess.Popen(
            [*arguments, *source, *target], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
        )
        assert decoder.stdout is not None
        try:
            yield from _decode(decoder, decoder.stdout, seconds)
            code = decoder.wait()
        finally:
            decoder.kill()
            decoder.stdout.close()
            decoder.wait()
        log.seek(0)
        lines = log.read(4096).decode("utf-8", "replace").strip().splitlines()
        if code != 0 or lines:
            cause = _ADDRESS.sub("", lines[0]) if lines else f"exit code {code}"
            # Which file it is, the caller says; this may be a copy.
            cause = cause.removeprefix(f"file:{os.fsdecode(name)}: ")
            raise FfmpegError(f"ffmpeg cannot decode it: {cause}")


def _decode(
    decoder: subprocess.Popen[bytes], stream: IO[bytes], seconds: float
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    header = _read(decoder, stream, 24)
    if len(header) < 24:
        # The log says why.
        return
    start, rate, channels = struct.unpack(">4xI8xII", header)
    _read(decoder, stream, start - 24)
    frame = 4 * channels
    size = max(1, int(seconds * rate)) * frame
    while data := _read(decoder, stream, size):
        yield (
            rate,
            np.frombuffer(data[: len(data) // frame * frame], dtype=">f4").astype(np.float32).reshape(-1, channels),
        )


def _read(decoder: subprocess.Popen[bytes], stream: IO[bytes], size: int) -> bytes:
    watchdog = threading.Timer(STALL_SECONDS, decoder.kill)
    watchdog.daemon = True
    watchdog.start()
    try:
        return stream.read(size)
    finally:
        watchdog.cancel()
