"""The forms in which audio is given to ``Tokenizer.encode``, and the recordings they become."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from spintok.data.audio import EXTENSIONS, AudioError, Recording, Resampler, blocks, by_soxr, from_array, record

__all__ = ["each_or_error", "is_batch", "iter_items", "open_item"]

T = TypeVar("T")


def is_batch(audio: Any, lengths: Any = None) -> bool:
    """Whether ``audio`` is several recordings: an array with ``lengths``, or an iterable that is no single recording.

    Raises:
        AudioError: it is of no known form.
    """
    if lengths is not None or isinstance(audio, list):
        return True
    if isinstance(audio, str | os.PathLike | bytes | bytearray | memoryview | Tensor | np.ndarray | Mapping):
        return False
    if _is_pair(audio) or hasattr(audio, "read") or hasattr(audio, "get_all_samples"):
        return False
    if isinstance(audio, Iterable):
        return True
    raise AudioError(
        f"audio cannot be a {type(audio).__name__}: give a path, samples and their rate, bytes, a file, or a list"
    )


def iter_items(audio: Any, lengths: Any = None) -> Iterator[Any]:
    """The recordings of a batch, still in the form in which they were given.

    Raises:
        AudioError: ``lengths`` do not fit the array (B, S).
    """
    if lengths is None:
        yield from audio
        return
    array = audio if isinstance(audio, Tensor) else np.asarray(audio)
    sizes = [int(length) for length in (lengths.tolist() if isinstance(lengths, Tensor) else np.asarray(lengths))]
    if array.ndim != 2 or len(sizes) != len(array):
        raise AudioError(
            f"lengths are for an array (B, S): got the shape {tuple(array.shape)} and {len(sizes)} lengths"
        )
    if sizes and not 0 <= min(sizes) <= max(sizes) <= array.shape[1]:
        raise AudioError(f"lengths must be in 0 ... {array.shape[1]}, got {min(sizes)} ... {max(sizes)}")
    for row, size in zip(array, sizes, strict=True):
        yield row[:size]


def open_item(
    audio: Any, sample_rate: int | None, channels: bool, in_memory: int, resample: Resampler = by_soxr
) -> Recording:
    """One recording from any of the forms that ``Tokenizer.encode`` lists.

    Args:
        audio: the recording.
        sample_rate: samples per second of arrays that do not state it.
        channels: whether 2-D arrays are (channels, S), to be averaged.
        in_memory: recordings of at most so many samples at 16 kHz are kept in memory.
        resample: how other rates become 16 kHz.

    Raises:
        AudioError: it is not usable audio, or its rate is missing or contradicts ``sample_rate``.
    """
    match audio:
        case str() | os.PathLike():
            return record(audio, in_memory, resample)
        case bytes() | bytearray() | memoryview():
            return _from_waveform(_decode(bytes(audio), resample), in_memory)
        case Mapping():
            return _from_mapping(audio, sample_rate, channels, in_memory, resample)
        case _ if _is_pair(audio):
            return _from_samples(audio[0], _one_rate(audio[1], sample_rate), channels, in_memory, resample)
        case _ if hasattr(audio, "get_all_samples"):
            # torchcodec's AudioDecoder, which Hugging Face datasets gives for an audio column.
            samples = audio.get_all_samples()
            return _from_samples(samples.data, int(samples.sample_rate), True, in_memory, resample)
        case _ if hasattr(audio, "read"):
            data = audio.read()
            if not isinstance(data, bytes):
                raise AudioError('a file must be opened in binary mode: open(path, "rb")')
            return _from_waveform(_decode(data, resample, getattr(audio, "name", None)), in_memory)
        case Tensor() | np.ndarray() | list():
            return _from_samples(audio, sample_rate, channels, in_memory, resample)
    raise AudioError(f"audio cannot be a {type(audio).__name__}: give a path, an array with its rate, bytes, or a file")


def each_or_error(
    encode: Callable[[Sequence[Recording]], Sequence[T]], opened: Sequence[Recording | AudioError]
) -> list[T | AudioError]:
    """What ``encode`` gives for each recording; errors stay where they are, and those of ``encode`` join them.

    The end of a long file may turn out to be damaged only when it is encoded. The others are then encoded one by one.
    """
    recordings = [item for item in opened if isinstance(item, Recording)]
    found: Sequence[T | AudioError]
    try:
        found = encode(recordings)
    except AudioError as error:
        found = [error] if len(recordings) == 1 else [each_or_error(encode, [one])[0] for one in recordings]
    waiting = iter(found)
    return [next(waiting) if isinstance(item, Recording) else item for item in opened]


def _is_pair(audio: Any) -> bool:
    """Whether this is (array, rate)."""
    return isinstance(audio, tuple) and len(audio) == 2 and isinstance(audio[1], Integral)


def _from_mapping(
    row: Mapping[str, Any], sample_rate: int | None, channels: bool, in_memory: int, resample: Resampler
) -> Recording:
    """A row of Hugging Face datasets: decoded, undecoded, or with an audio column."""
    if "array" in row and "sampling_rate" in row:
        rate = _one_rate(row["sampling_rate"], sample_rate)
        return _from_samples(row["array"], rate, channels, in_memory, resample)
    if isinstance(row.get("bytes"), bytes):
        return _from_waveform(_decode(row["bytes"], resample, row.get("path")), in_memory)
    for key in ("path", "audio"):
        if row.get(key) is not None:
            return open_item(row[key], sample_rate, channels, in_memory, resample)
    raise AudioError(
        'a mapping must hold "array" and "sampling_rate", "bytes", "path", or "audio"; '
        f"this one holds {', '.join(map(str, list(row)[:8])) or 'nothing'}"
    )


def _one_rate(own: int, given: int | None) -> int:
    if given is not None and own != given:
        raise AudioError(f"the audio states a rate of {own} Hz, but sample_rate is {given}")
    return own


def _from_samples(
    samples: Any, sample_rate: int | None, channels: bool, in_memory: int, resample: Resampler
) -> Recording:
    if sample_rate is None:
        raise AudioError("an array needs a sample rate: encode(samples, sample_rate)")
    if isinstance(samples, Tensor):
        samples = samples.detach().cpu()
        samples = samples.float() if samples.dtype in (torch.bfloat16, torch.float16) else samples
    array = np.asarray(samples)
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.ndim == 2 and len(array) == 1:
        array = array[0]
    if array.ndim == 2 and not channels:
        raise AudioError(
            f"an array of shape {array.shape} may be several recordings or channels of one: give a list of recordings, "
            "lengths= for a padded batch, or channels=True to average the channels"
        )
    return _from_waveform(from_array(array, sample_rate, resample), in_memory)


def _from_waveform(waveform: Tensor, in_memory: int) -> Recording:
    return Recording(waveform if len(waveform) <= in_memory else None, lambda: iter([waveform]))


def _decode(data: bytes, resample: Resampler, path: Any = None) -> Tensor:
    """The waveform of an audio file's contents, with all checks that files on disk get.

    ``path`` is the file's name, if known. Its ending matters for formats that only ffmpeg reads.
    """
    ending = Path(path).suffix.lower() if isinstance(path, str) else ""
    descriptor, name = tempfile.mkstemp(prefix="spintok-", suffix=ending if ending in EXTENSIONS else "")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        return torch.cat(list(blocks(name, resample)))
    except AudioError as error:
        raise AudioError(str(error).replace(name, f"audio of {len(data):,} bytes")) from None
    finally:
        Path(name).unlink()
