"""Completeness of audio files: what a file's header declares, against what is there.

libsndfile reads files that are cut short, and Ogg streams with damaged pages, without an error. These checks read
headers and page checksums only, not samples.

Sources: Microsoft's RIFF, RF64 (EBU Tech 3306), Apple's AIFF and CAF, Sony's Wave64, NIST SPHERE, Sun's AU, and Ogg
(RFC 3533).
"""

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["ogg_damage", "sample_bytes"]

_MAX_CHUNKS = 10_000
# A header written to a pipe cannot know the length and declares the largest one, or none.
_UNKNOWN_RIFF_SIZE = 0x7FFF_0000

_OGG_FIRST, _OGG_LAST = 2, 4
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def sample_bytes(path: Path) -> tuple[int, int] | None:
    """Return the bytes of samples that the header declares, and those in the file; for AVI, of the whole file.

    None if the format is another one, or if the header leaves the length open.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        magic = file.read(16)
        found: tuple[int, int] | None = None
        match magic[:4]:
            case b"RIFF" if magic[8:12] == b"AVI ":
                found = 8, int.from_bytes(magic[4:8], "little")
            case b"RIFF" | b"RIFX" | b"RF64" | b"BW64":
                found = _riff(file, magic[:4])
            case b"FORM":
                found = _chunk(file, 12, ">4sI", b"SSND", size)
            case b".snd" | b"dns.":
                found = _au(magic)
            case b"NIST":
                found = _nist(file)
            case b"riff":
                found = _wave64(file, size)
            case b"caff":
                found = _chunk(file, 8, ">4sq", b"data", size)
                found = found if found is None or found[1] >= 0 else None
            case _:
                pass
    if found is None:
        return None
    start, declared = found
    return declared, max(0, min(size - start, declared))


def ogg_damage(path: Path) -> str | None:
    """Return what is wrong with an Ogg file: a damaged or missing page, a missing end, or a second stream.

    Bytes after the last page are not looked at. None if the file is complete, or of another format.
    """
    with path.open("rb") as file:
        if file.read(4) != b"OggS":
            return None
        file.seek(0)
        audio_pages: dict[int, int] = {}
        last_flags, number, audio_began = 0, 0, False
        for number, page in enumerate(_ogg_pages(file), start=1):
            if page is None:
                # What follows the end of the stream is not part of it.
                return None if last_flags & _OGG_LAST else f"page {number} of its Ogg stream is damaged or cut short"
            flags, granule, serial, sequence = page
            if flags & _OGG_FIRST and audio_began:
                return "it holds several Ogg streams one after another, of which only the first would be read"
            if granule > 0:
                audio_began = True
                if sequence != audio_pages.get(serial, sequence - 1) + 1:
                    return f"pages are missing before page {number} of its Ogg stream"
                audio_pages[serial] = sequence
            elif serial in audio_pages:
                audio_pages[serial] = sequence
            last_flags = flags
        return None if last_flags & _OGG_LAST else "it is cut short: its Ogg stream has no last page"


def _riff(file: BinaryIO, magic: bytes) -> tuple[int, int] | None:
    """Return the start and the declared size of the ``data`` chunk; RF64 keeps the size in a chunk of its own."""
    order = ">" if magic == b"RIFX" else "<"
    file.seek(12)
    long_size = None
    for _ in range(_MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8:
            break
        name, size = struct.unpack(order + "4sI", header)
        if name == b"ds64":
            body = file.read(16)
            long_size = struct.unpack("<Q", body[8:])[0] if len(body) == 16 else None
            size -= len(body)
        if name == b"data":
            if long_size is not None and size == 0xFFFF_FFFF:
                return file.tell(), long_size
            return None if size == 0 or size >= _UNKNOWN_RIFF_SIZE else (file.tell(), size)
        file.seek(max(size, 0) + (size & 1), os.SEEK_CUR)
    return None


def _chunk(file: BinaryIO, start: int, layout: str, wanted: bytes, end: int) -> tuple[int, int] | None:
    """Return the start and the declared size of a chunk in a file of chunks with big-endian sizes."""
    file.seek(start)
    for _ in range(_MAX_CHUNKS):
        header = file.read(struct.calcsize(layout))
        if len(header) < struct.calcsize(layout):
            return None
        name, size = struct.unpack(layout, header)
        if name == wanted:
            return file.tell(), size
        after = file.tell() + size + (size & 1 if layout == ">4sI" else 0)
        if size < 0 or after > end:
            return None
        file.seek(after)
    return None


def _wave64(file: BinaryIO, end: int) -> tuple[int, int] | None:
    """Return the start and the declared size of the ``data`` chunk; sizes include the chunk's header of 24 bytes."""
    file.seek(40)
    for _ in range(_MAX_CHUNKS):
        header = file.read(24)
        if len(header) < 24:
            return None
        size = struct.unpack("<Q", header[16:])[0]
        if header[:4] == b"data":
            return file.tell(), size - 24
        after = file.tell() - 24 + (size + 7) // 8 * 8
        if size < 24 or after > end:
            return None
        file.seek(after)
    return None


def _au(header: bytes) -> tuple[int, int] | None:
    order = ">" if header[:4] == b".snd" else "<"
    if len(header) < 12:
        return None
    start, size = struct.unpack(order + "II", header[4:12])
    return None if size in (0, 0xFFFF_FFFF) else (start, size)


def _nist(file: BinaryIO) -> tuple[int, int] | None:
    """Return the size of the header and that of the samples, which are declared as a count."""
    file.seek(0)
    lines = file.read(1 << 16).split(b"\n")
    try:
        start = int(lines[1])
        fields = {line.split()[0]: line.split()[2] for line in lines[2:] if len(line.split()) == 3}
        count, channels = int(fields[b"sample_count"]), int(fields.get(b"channel_count", 1))
        return start, count * channels * int(fields[b"sample_n_bytes"])
    except (ValueError, KeyError, IndexError):
        return None


def _ogg_pages(file: BinaryIO) -> Iterator[tuple[int, int, int, int] | None]:
    """Yield the flags, granule position, stream and number of each page, and None in place of a damaged one."""
    while header := file.read(27):
        segments = file.read(header[26]) if len(header) == 27 else b""
        if len(header) < 27 or header[:4] != b"OggS" or len(segments) < header[26]:
            yield None
            return
        body = file.read(sum(segments))
        checksum = _ogg_crc(header[:22] + bytes(4) + header[26:] + segments + body)
        if len(body) < sum(segments) or checksum != int.from_bytes(header[22:26], "little"):
            yield None
            return
        granule, serial, sequence = struct.unpack("<qII", header[6:22])
        yield header[5], granule, serial, sequence


def _ogg_crc(data: bytes) -> int:
    """Return the CRC-32 of Ogg: zlib's polynomial, but most significant bit first, from 0, and not inverted."""
    reflected = zlib.crc32(data.translate(_REVERSED_BITS), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{reflected:032b}"[::-1], 2)
