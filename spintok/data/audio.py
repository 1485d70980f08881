"""Audio of any kind as mono float32 waveforms at 16 kHz.

libsndfile reads wav, flac, ogg/vorbis, ogg/opus, mp3, aiff and more; ffmpeg, if it is installed, reads the formats in
``spintok.data.ffmpeg``. Channels are averaged. Other sample rates are resampled by soxr at its "HQ" quality (20-bit
precision): ``n`` samples at rate ``r`` become ``floor(n * 16000 / r + 1/2)``. Reading block by block gives the same
samples, bit for bit, as reading at once.
"""

import os
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from spintok.data import ffmpeg
from spintok.data.containers import ogg_damage, sample_bytes
from spintok.data.locations.addresses import local_audio, located, suffix_of
from spintok.data.locations.base import LocalAudio, LocationError, Span
from spintok.data.locations.remote import RemoteFile
from spintok.data.resampling import StreamResampler
from spintok.frames import SAMPLE_RATE

__all__ = [
    "EXTENSIONS",
    "AudioError",
    "AudioWarning",
    "Recording",
    "Resampler",
    "as_streams",
    "blocks",
    "by_soxr",
    "declared_samples",
    "decoder_version",
    "from_array",
    "mono",
    "read",
    "record",
]

_LIBSNDFILE = frozenset(
    {
        *(".8svx", ".aif", ".aifc", ".aiff", ".au", ".avr", ".bwf", ".caf", ".flac", ".iff", ".ircam", ".mp1", ".mp2"),
        *(".mp3", ".mpga", ".nist", ".oga", ".ogg", ".opus", ".paf", ".pvf", ".rf64", ".sf", ".snd", ".sph", ".svx"),
        *(".voc", ".w64", ".wav", ".wave"),
    }
)

EXTENSIONS = _LIBSNDFILE | ffmpeg.EXTENSIONS
"""Endings of file names, in lower case, that the scan of a folder takes for audio or video."""

RATES = range(1000, 1_000_001)
"""Sample rates in Hz that are taken for real."""

LARGEST_SAMPLE = 2.0**31
"""The largest absolute value of a sample; full scale is 1, but files with integers stored as floats exist."""

TAIL_SECONDS = 0.02
"""The longest piece that may be missing at the end of a file; more is an error."""

_EXACT_SEEKING = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
"""Beginnings of libsndfile's subtypes whose samples are the same after a seek as when the file is read to there."""

_HEADED = (".wav", ".flac")
"""Endings of files whose headers declare their lengths."""

BLOCK_SECONDS = 30
_BLOCK_SAMPLES = 1 << 24


class AudioError(ValueError):
    """A file or array that is not usable audio; the message names it and the cause."""


class AudioWarning(UserWarning):
    """A file that is read, but lacks a few milliseconds at its end."""


@dataclass(frozen=True)
class Recording:
    """One utterance: held in memory if it is short, read again block by block if it is long.

    Attributes:
        waveform: (S,) float32 at 16 kHz, or None if the audio is longer than the limit.
        blocks: yields the waveform from its start as consecutive blocks, anew at each call.
        seconds: the duration that a long file's header states; None if unknown.
    """

    waveform: Tensor | None
    blocks: Callable[[], Iterator[Tensor]]
    seconds: float | None = None


Resampler = Callable[[Iterable[Tensor], int], Iterator[Tensor]]
"""Consecutive parts (S_i,) at a rate to parts at 16 kHz: ``by_soxr`` or ``as_streams``."""


def by_soxr(parts: Iterable[Tensor], rate: int) -> Iterator[Tensor]:
    """Resample by soxr: how files and arrays are read unless said otherwise."""
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    for part in parts:
        yield torch.from_numpy(stream.resample_chunk(part.numpy()))
    yield torch.from_numpy(stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True))


def as_streams(parts: Iterable[Tensor], rate: int) -> Iterator[Tensor]:
    """Resample as streams do (``spintok.data.resampling``), for tokens that equal those of a stream."""
    stream = StreamResampler(rate)
    for part in parts:
        yield torch.from_numpy(stream.push(part.numpy()))
    yield torch.from_numpy(stream.finish())


def record(path: str | os.PathLike[str], at_most: int, resample: Resampler = by_soxr) -> Recording:
    """Open a file, and hold it in memory if it has ``at_most`` samples at 16 kHz or fewer. Raises ``AudioError``."""
    name = os.fspath(path)
    audio = _local(path)
    parts: list[Tensor] = []
    total = 0
    for block in _blocks(name, audio, resample):
        parts.append(block)
        total += len(block)
        if total > at_most:
            # A copy of a file that is elsewhere stays as long as this refers to it.
            return Recording(None, lambda: _blocks(name, audio, resample), _declared_seconds(name, audio))
    waveform = torch.cat(parts)
    return Recording(waveform, lambda: iter([waveform]))


def read(path: str | os.PathLike[str]) -> Tensor:
    """Return the whole file as a waveform, shape (S,), float32, at 16 kHz. Raises ``AudioError``."""
    return torch.cat(list(blocks(path)))


def blocks(path: str | os.PathLike[str], resample: Resampler = by_soxr) -> Iterator[Tensor]:
    """Yield the file as consecutive waveforms of about 30 s, each (S,) float32 at 16 kHz, in bounded memory.

    The path may be an address (``spintok.data.locations.base``); what is elsewhere is copied to a temporary file first.

    Raises ``AudioError`` if the file is missing, empty, no audio, cut short or damaged, or has samples that are NaN,
    infinite or beyond ``LARGEST_SAMPLE``. Warns with ``AudioWarning`` if at most ``TAIL_SECONDS`` are missing.
    """
    yield from _blocks(os.fspath(path), _local(path), resample)


def declared_samples(path: str | os.PathLike[str]) -> int:
    """Return the length in samples at 16 kHz that a file's header declares, rounded down.

    Files for ffmpeg are decoded, as their headers only have estimates. Of a wav or flac file on an object store only
    the header is read. Raises ``AudioError``.
    """
    name = os.fspath(path)
    with _audio_errors(name):
        found = located(path)
        if isinstance(found, RemoteFile) and found.suffix in _HEADED:
            with found.open() as stream, soundfile.SoundFile(stream) as file:
                return _samples_of(name, file, None)
    return _declared_samples(name, _local(path))


def decoder_version(paths: Iterable[str | os.PathLike[str]]) -> str | None:
    """Return the version of ffmpeg if it would decode one of the files; None otherwise.

    Other versions may decode lossy formats to other samples, so a job that mixes them would mix tokens.
    """
    return ffmpeg.version() if any(suffix_of(path) in ffmpeg.EXTENSIONS for path in paths) else None


def from_array(samples: Any, sample_rate: int, resample: Resampler = by_soxr) -> Tensor:
    """Return samples in memory as a waveform, shape (S,), float32, at 16 kHz.

    Args:
        samples: a tensor or array, (S,) or (channels, S); floats in [-1, 1] or signed integers at full scale.
        sample_rate: samples a second, a positive integer.
        resample: how other rates become 16 kHz.
    """
    waveform = torch.from_numpy(mono(samples, sample_rate))
    return waveform if sample_rate == SAMPLE_RATE else torch.cat(list(resample([waveform], int(sample_rate))))


def mono(samples: Any, sample_rate: int) -> NDArray[np.float32]:
    """Samples in memory, as in ``from_array``, checked and averaged over channels: a copy, (S,), at their own rate."""
    array = np.asarray(samples.detach().cpu() if isinstance(samples, Tensor) else samples)
    if isinstance(sample_rate, bool) or sample_rate != int(sample_rate) or sample_rate <= 0:
        raise AudioError(f"sample_rate must be a positive integer, got {sample_rate!r}")
    _refuse_rate("waveform", int(sample_rate))
    if array.ndim == 2 and array.shape[0] > array.shape[1]:
        raise AudioError(f"a waveform is (samples,) or (channels, samples), got shape {array.shape}: transpose it")
    if array.ndim not in (1, 2) or 0 in array.shape[:-1]:
        raise AudioError(f"a waveform is (samples,) or (channels, samples), got shape {array.shape}")
    if array.dtype.kind == "i":
        array = array.astype(np.float32) / np.float32(-float(np.iinfo(array.dtype).min))
    elif array.dtype.kind != "f":
        raise AudioError(f"samples must be floats or signed integers, got {array.dtype}")
    found = array.astype(np.float32, copy=False) if array.ndim == 1 else array.mean(axis=0, dtype=np.float32)
    _refuse_unusable("waveform", found)
    return np.array(found, dtype=np.float32)


@contextmanager
def _audio_errors(name: str) -> Iterator[None]:
    """Turn whatever is raised for a damaged file into an ``AudioError`` that names it."""
    try:
        yield
    except AudioError:
        raise
    except FileNotFoundError:
        raise AudioError(f"{name}: no such file") from None
    except OSError as error:
        cause = error.strerror or str(error)
        raise AudioError(cause if cause.startswith(f"{name}: ") else f"{name}: {cause}") from error
    except LocationError as error:
        raise AudioError(f"{name}: {error}") from None
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{name}: libsndfile cannot read it: {error.error_string}") from None
    except ffmpeg.FfmpegError as error:
        raise AudioError(f"{name}: {error}") from None
    except (ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise AudioError(f"{name}: cannot be read: {error!r}") from None


def _local(path: str | os.PathLike[str]) -> LocalAudio:
    with _audio_errors(os.fspath(path)):
        return local_audio(path)


def _blocks(name: str, audio: LocalAudio, resample: Resampler) -> Iterator[Tensor]:
    """As ``blocks``; ``name`` is for messages."""
    with _audio_errors(name):
        _refuse_no_file(name, audio.path)
        if _needs_ffmpeg(audio):
            _refuse_incomplete(name, audio.path)
            found = ffmpeg.blocks(audio.path, BLOCK_SECONDS)
            yield from _to_16_khz(name, found if audio.span is None else _part(name, found, audio.span), resample)
            return
        with _open(audio.path) as file:
            _refuse_incomplete(name, audio.path, file)
            yield from _to_16_khz(name, _libsndfile(name, file, audio.span), resample)


def _declared_samples(name: str, audio: LocalAudio) -> int:
    with _audio_errors(name):
        _refuse_no_file(name, audio.path)
        if _needs_ffmpeg(audio):
            return sum(map(len, _blocks(name, audio, by_soxr)))
        with _open(audio.path) as file:
            return _samples_of(name, file, audio.span)


def _samples_of(name: str, file: soundfile.SoundFile, span: Span | None) -> int:
    _refuse_rate(name, file.samplerate)
    frames = file.frames
    if span is not None:
        wanted = span.samples(file.samplerate)
        frames = max(0, min(wanted.stop, frames) - wanted.start)
    return int(frames * SAMPLE_RATE // file.samplerate)


def _declared_seconds(name: str, audio: LocalAudio) -> float | None:
    return None if _needs_ffmpeg(audio) else _declared_samples(name, audio) / SAMPLE_RATE


def _needs_ffmpeg(audio: LocalAudio) -> bool:
    return audio.suffix in ffmpeg.EXTENSIONS


def _open(path: str) -> soundfile.SoundFile:
    # libsndfile takes the bytes of the name, which need not be UTF-8.
    return soundfile.SoundFile(path if os.name == "nt" else os.fsencode(path))


def _libsndfile(name: str, file: soundfile.SoundFile, span: Span | None) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the rate and consecutive blocks (samples, channels) of a span or of all; check that all samples came."""
    _refuse_rate(name, file.samplerate)
    if span is None:
        yield from _all_blocks(name, file, 0)
        return
    start = 0
    if file.subtype.startswith(_EXACT_SEEKING):
        start = min(span.samples(file.samplerate).start, file.frames)
        file.seek(start)
    yield from _part(name, _all_blocks(name, file, start), span, start)


def _all_blocks(name: str, file: soundfile.SoundFile, start: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the rate and consecutive blocks (samples, channels) of a file that is at sample ``start``."""
    size = max(1, min(BLOCK_SECONDS * file.samplerate, _BLOCK_SAMPLES // file.channels))
    expected, total = file.frames, start
    while len(block := file.read(size, dtype="float32", always_2d=True)):
        total += len(block)
        yield file.samplerate, block
    # An mp3 without a length header only has an estimate, which may be too low.
    if total and total < expected:
        _refuse_missing(name, (expected - total) / file.samplerate, f"{total} of {expected} samples")


def _part(
    name: str, source: Iterator[tuple[int, NDArray[np.float32]]], span: Span, start: int = 0
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The samples and channels of a span, of consecutive blocks from sample ``start`` on."""
    rate, at = SAMPLE_RATE, start
    for rate, block in source:
        wanted = span.samples(rate)
        found = block[max(0, wanted.start - at) : max(0, wanted.stop - at)]
        at += len(block)
        if len(found):
            yield rate, _channels(found, span)
        if at >= wanted.stop:
            return
    wanted = span.samples(rate)
    have = max(0, at - wanted.start)
    _refuse_missing(name, (len(wanted) - have) / rate, f"{have} of {len(wanted)} samples of this part")


def _channels(block: NDArray[np.float32], span: Span) -> NDArray[np.float32]:
    if span.channels is None:
        return block
    if max(span.channels) >= block.shape[1]:
        raise LocationError(f"channel {max(span.channels)} is wanted, from 0, and the file has {block.shape[1]}")
    return block[:, span.channels]


def _to_16_khz(name: str, source: Iterator[tuple[int, NDArray[np.float32]]], resample: Resampler) -> Iterator[Tensor]:
    """Check blocks (samples, channels), average their channels and resample them."""
    first = next(source, None)
    if first is None:
        raise AudioError(f"{name}: the file holds no samples")
    rate = first[0]
    _refuse_rate(name, rate)

    averaged = (_average(name, block) for _, block in chain([first], source))
    yield from averaged if rate == SAMPLE_RATE else resample(averaged, rate)


def _average(name: str, block: NDArray[np.float32]) -> Tensor:
    mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
    _refuse_unusable(name, mono)
    return torch.from_numpy(np.ascontiguousarray(mono))


def _refuse_no_file(name: str, path: str) -> None:
    status = os.stat(path)  # noqa: PTH116
    if stat.S_ISDIR(status.st_mode):
        # A scan lists folders that it cannot read; listing this one again raises the cause.
        with os.scandir(path):
            raise AudioError(f"{name}: is a folder, not an audio file")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(f"{name}: is a pipe or a device, not an audio file")
    if status.st_size == 0:
        raise AudioError(f"{name}: the file is empty (0 bytes)")


def _refuse_rate(name: str, rate: int) -> None:
    if rate not in RATES:
        raise AudioError(f"{name}: a sample rate of {rate} Hz is outside {RATES.start} ... {RATES.stop - 1} Hz")


def _refuse_unusable(name: str, samples: NDArray[np.float32]) -> None:
    bad = np.count_nonzero(~np.isfinite(samples))
    if bad:
        raise AudioError(f"{name}: {bad} sample{' is' if bad == 1 else 's are'} NaN or infinite")
    largest = float(np.abs(samples).max(initial=0.0))
    if largest > LARGEST_SAMPLE:
        raise AudioError(f"{name}: samples reach {largest:.3g}, where full scale is 1")


def _refuse_incomplete(name: str, path: str, file: soundfile.SoundFile | None = None) -> None:
    """Find files that end before their header says and damaged Ogg pages: decoders read such files silently."""
    if damage := ogg_damage(Path(path)):
        raise AudioError(f"{name}: {damage}")
    declared, found = sample_bytes(Path(path)) or (0, 0)
    if found < declared:
        seconds = float("inf")
        if file is not None and file.samplerate in RATES:
            seconds = (declared - found) / max(found, 1) * file.frames / file.samplerate
        _refuse_missing(name, seconds, f"{found} of {declared} bytes of samples")


def _refuse_missing(name: str, seconds: float, what: str) -> None:
    if seconds > TAIL_SECONDS:
        raise AudioError(f"{name}: the file is cut short: {what}")
    warnings.warn(f"{name}: the last {seconds * 1000:.1f} ms are missing: {what}", AudioWarning, stacklevel=2)
