"""Audio of any kind to one kind: mono float32 waveforms at 16 kHz.

Files are read by libsndfile (wav, flac, ogg/vorbis, ogg/opus, mp3, aiff and more). Channels are averaged. Other sample
rates go through soxr at its "HQ" quality (20-bit precision); ``n`` samples at rate ``r`` become
``floor(n * 16000 / r + 1/2)``. Reading block by block gives the same samples, bit for bit, as reading at once.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from spintok.frames import SAMPLE_RATE

__all__ = ["EXTENSIONS", "AudioError", "Recording", "blocks", "from_array", "read", "record"]

EXTENSIONS = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".sph", ".w64", ".caf"}
)
"""File names that a folder scan takes for audio, in lower case."""

BLOCK_SECONDS = 30
# A wav header written to a pipe cannot know its length and claims the largest one.
_UNKNOWN_LENGTH = 0x7FFF_0000


class AudioError(ValueError):
    """A file or array that is not usable audio; the message names it and the cause."""


@dataclass(frozen=True)
class Recording:
    """One utterance: held in memory when it is short, read again block by block when it is long.

    Attributes:
        waveform: (S,) float32 at 16 kHz, or None when the audio is longer than was asked to be held.
        blocks: gives the waveform from its start as consecutive blocks, anew at each call.
    """

    waveform: Tensor | None
    blocks: Callable[[], Iterator[Tensor]]


def record(path: str | PathLike[str], at_most: int) -> Recording:
    """The file, in memory when it has ``at_most`` samples at 16 kHz or fewer. Raises ``AudioError``."""
    held: list[Tensor] = []
    total = 0
    for block in blocks(path):
        held.append(block)
        total += len(block)
        if total > at_most:
            return Recording(None, lambda: blocks(path))
    waveform = torch.cat(held)
    return Recording(waveform, lambda: iter([waveform]))


def read(path: str | PathLike[str]) -> Tensor:
    """The whole file as a waveform, shape (S,), float32, at 16 kHz. Raises ``AudioError``."""
    return torch.cat(list(blocks(path)))


def blocks(path: str | PathLike[str]) -> Iterator[Tensor]:
    """The file as consecutive waveforms of some 30 s, each (S,) float32 at 16 kHz, in bounded memory.

    Raises ``AudioError`` when the file is missing, empty, no audio, cut short, or holds NaN or infinite samples.
    """
    name = fspath(path)
    try:
        if Path(name).is_dir():
            raise AudioError(f"{name}: is a folder, not an audio file")
        if Path(name).stat().st_size == 0:
            raise AudioError(f"{name}: the file is empty (0 bytes)")
        with soundfile.SoundFile(name) as file:
            _refuse_truncated_header(name, file)
            pieces = _mono(name, file)
            yield from pieces if file.samplerate == SAMPLE_RATE else _resample(pieces, file.samplerate)
    except FileNotFoundError:
        raise AudioError(f"{name}: no such file") from None
    except OSError as error:
        raise AudioError(f"{name}: {error.strerror or error}") from None
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{name}: libsndfile cannot read it: {error.error_string}") from None


def from_array(samples: Any, sample_rate: int) -> Tensor:
    """Samples in memory as a waveform, shape (S,), float32, at 16 kHz.

    Args:
        samples: a tensor or array, (S,) or (channels, S); floats in [-1, 1] or signed integers at full scale.
        sample_rate: samples a second, a positive integer.
    """
    array = np.asarray(samples.detach().cpu() if isinstance(samples, Tensor) else samples)
    if isinstance(sample_rate, bool) or sample_rate != int(sample_rate) or sample_rate <= 0:
        raise AudioError(f"sample_rate must be a positive integer, got {sample_rate!r}")
    if array.ndim == 2 and array.shape[0] > array.shape[1]:
        raise AudioError(f"a waveform is (samples,) or (channels, samples), got shape {array.shape}: transpose it")
    if array.ndim not in (1, 2) or 0 in array.shape[:-1]:
        raise AudioError(f"a waveform is (samples,) or (channels, samples), got shape {array.shape}")
    if array.dtype.kind == "i":
        array = array.astype(np.float32) / np.float32(-float(np.iinfo(array.dtype).min))
    elif array.dtype.kind != "f":
        raise AudioError(f"samples must be floats or signed integers, got {array.dtype}")
    mono = array.astype(np.float32, copy=False) if array.ndim == 1 else array.mean(axis=0, dtype=np.float32)
    _refuse_not_finite("waveform", mono)
    pieces = iter([mono])
    parts = list(_tensors(pieces) if sample_rate == SAMPLE_RATE else _resample(_tensors(pieces), int(sample_rate)))
    return torch.cat(parts)


def _mono(name: str, file: soundfile.SoundFile) -> Iterator[Tensor]:
    """Consecutive float32 blocks at the file's own rate, channels averaged; checks that all samples came."""
    expected, total = file.frames, 0
    size = BLOCK_SECONDS * file.samplerate
    while len(block := file.read(size, dtype="float32", always_2d=True)):
        total += len(block)
        mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
        _refuse_not_finite(name, mono)
        yield torch.from_numpy(np.ascontiguousarray(mono))
    if total == 0:
        raise AudioError(f"{name}: the file holds no samples")
    # An mp3 without a length header only has an estimate, and it may be short of what is there.
    if total < expected:
        raise AudioError(f"{name}: the file is cut short: {total} of {expected} samples")


def _tensors(pieces: Iterable[np.ndarray]) -> Iterator[Tensor]:
    for piece in pieces:
        yield torch.from_numpy(np.array(piece, dtype=np.float32))


def _resample(pieces: Iterator[Tensor], rate: int) -> Iterator[Tensor]:
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    for piece in pieces:
        yield torch.from_numpy(stream.resample_chunk(piece.numpy()))
    yield torch.from_numpy(stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True))


def _refuse_not_finite(name: str, samples: np.ndarray) -> None:
    bad = np.count_nonzero(~np.isfinite(samples))
    if bad:
        raise AudioError(f"{name}: {bad} samples are NaN or infinite")


def _refuse_truncated_header(name: str, file: soundfile.SoundFile) -> None:
    """Find files that end before their header says; libsndfile reads them without a word."""
    if file.format in ("WAV", "WAVEX", "AIFF", "RF64", "W64"):
        for line in file.extra_info.splitlines():
            # Its log says for the sample chunk "data : CLAIMED (should be FOUND)".
            words = line.replace(":", " ").split()
            if len(words) >= 5 and words[0] in ("data", "SSND") and words[2:4] == ["(should", "be"]:
                claimed, found = int(words[1]), int(words[4].rstrip(")"))
                if found < claimed < _UNKNOWN_LENGTH:
                    raise AudioError(f"{name}: the file is cut short: {found} of {claimed} bytes of samples")
    elif file.format == "OGG" and not _ogg_ends(Path(name)):
        raise AudioError(f"{name}: the file is cut short: its Ogg stream has no last page")


def _ogg_ends(path: Path) -> bool:
    """Whether the last Ogg page is whole and marked as the end of the stream (RFC 3533, section 6)."""
    with path.open("rb") as file:
        file.seek(0, 2)
        # A page is at most 27 + 255 + 255 * 255 bytes.
        start = max(0, file.tell() - 65_307)
        file.seek(start)
        tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0 or at + 27 > len(tail):
        return False
    segments = tail[at + 27 : at + 27 + tail[at + 26]]
    size = 27 + tail[at + 26] + sum(segments)
    return bool(tail[at + 5] & 4) and at + size <= len(tail)
