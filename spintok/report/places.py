"""Places where each code occurs, with the audio around them: "hear code 12" on the page of a token folder."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spintok.corpus.token_formats import Record
from spintok.data.audio import AudioError, blocks
from spintok.frames import SAMPLE_RATE
from spintok.report.audio_view import opus_uri

__all__ = ["MOST_CODES", "PLACES", "Place", "code_sounds", "sample_places"]

PLACES = 10
"""The number of places of each code."""
MOST_CODES = 500
"""Only this many codes, the most frequent ones, have audio; they take about 13 MB."""
CONTEXT_SECONDS = 0.25
"""Audio on either side of a token."""

_PAUSE_SECONDS = 0.1
_FADE_SECONDS = 0.005
_BATCH = 1000

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class Place:
    """One occurrence of a code, with its start and end in seconds."""

    key: str
    file_name: str
    speaker: str | None
    start: float
    end: float


def sample_places(records: Iterable[Record], codebook: str, count: int = PLACES) -> dict[int, list[Place]]:
    """At most ``count`` occurrences of each code, chosen uniformly at random; the same records give the same places.

    Every occurrence gets a random priority and the lowest ones are kept, so memory grows with the codebook only.
    """
    rng = np.random.default_rng(0)
    kept: dict[int, list[tuple[float, Place]]] = {}
    waiting = iter(records)
    while batch := list(islice(waiting, _BATCH)):
        units = np.concatenate([record.tokens[codebook].units for record in batch])
        owner = np.repeat(np.arange(len(batch)), [record.tokens[codebook].units.size for record in batch])
        first = np.cumsum([0, *(record.tokens[codebook].units.size for record in batch)])
        priority = rng.random(units.size)
        order = np.lexsort((priority, units))
        # The rank of each occurrence among those of its code in this batch.
        starts = np.flatnonzero(np.diff(units[order], prepend=-1))
        rank = np.arange(units.size) - np.repeat(starts, np.diff([*starts, units.size]))
        for index in order[rank < count].tolist():
            record = batch[owner[index]]
            start, end = record.tokens[codebook].times[index - first[owner[index]]]
            place = Place(record.key, record.file_name, record.speaker, float(start), float(end))
            kept.setdefault(int(units[index]), []).append((float(priority[index]), place))
        kept = {code: sorted(found, key=lambda one: one[0])[:count] for code, found in kept.items()}
    return {code: [place for _, place in found] for code, found in sorted(kept.items())}


def code_sounds(places: Mapping[int, Sequence[Place]]) -> dict[int, dict[str, Any]]:
    """For each code its ``sound``, a ``data:`` URI of all its places one after another, and the ``places``.

    Each place has ``from`` and ``to``, where it is in the sound, in seconds; ``start`` and ``end``, where its token is;
    ``time``, where it is in the recording; ``key`` and ``speaker``.

    Raises:
        AudioError: an audio file cannot be read.
    """
    clips = _cut_all([place for found in places.values() for place in found])
    sounds: dict[int, dict[str, Any]] = {}
    for code, found in places.items():
        parts: list[Waveform] = []
        rows: list[dict[str, Any]] = []
        length = 0
        for place in found:
            clip, before = clips[place]
            rows.append(
                {
                    "key": place.key,
                    "speaker": place.speaker,
                    "time": round(place.start, 3),
                    "from": round(length / SAMPLE_RATE, 4),
                    "to": round((length + len(clip)) / SAMPLE_RATE, 4),
                    "start": round(length / SAMPLE_RATE + before, 4),
                    "end": round(length / SAMPLE_RATE + before + place.end - place.start, 4),
                }
            )
            parts += [_faded(clip), np.zeros(round(_PAUSE_SECONDS * SAMPLE_RATE), dtype=np.float32)]
            length += len(clip) + len(parts[-1])
        sounds[code] = {"sound": opus_uri(np.concatenate(parts)), "places": rows}
    return sounds


def _cut_all(places: Sequence[Place]) -> dict[Place, tuple[Waveform, float]]:
    """The audio around each place, and how many seconds of it precede the token; each file is read once."""
    of_file: dict[str, list[Place]] = {}
    for place in places:
        of_file.setdefault(place.file_name, []).append(place)
    return {place: clip for name, found in of_file.items() for place, clip in _cut(name, found)}


def _cut(name: str, places: Sequence[Place]) -> Iterator[tuple[Place, tuple[Waveform, float]]]:
    """The clips of one file, which is read block by block and only up to the end of the last clip."""
    spans = [_span(place) for place in places]
    clips = [np.zeros(end - start, dtype=np.float32) for start, end in spans]
    offset, last = 0, max(end for _, end in spans)
    try:
        for block in blocks(name):
            for (start, end), clip in zip(spans, clips, strict=True):
                low, high = max(start, offset), min(end, offset + len(block))
                if low < high:
                    clip[low - start : high - start] = block[low - offset : high - offset].numpy()
            offset += len(block)
            if offset >= last:
                break
    except AudioError as error:
        raise AudioError(f"{error}; --listen reads the audio files from where they were encoded") from None
    for place, (start, _), clip in zip(places, spans, clips, strict=True):
        # The recording may end within the context of a token.
        yield place, (clip[: offset - start], place.start - start / SAMPLE_RATE)


def _span(place: Place) -> tuple[int, int]:
    """The first sample of a clip and the one after its last."""
    start, end = place.start - CONTEXT_SECONDS, place.end + CONTEXT_SECONDS
    return max(0, round(start * SAMPLE_RATE)), round(end * SAMPLE_RATE)


def _faded(clip: Waveform) -> Waveform:
    """The clip with a short fade at both ends, which avoids clicks."""
    size = min(round(_FADE_SECONDS * SAMPLE_RATE), len(clip) // 2)
    ramp = np.linspace(0, 1, size, endpoint=False, dtype=np.float32)
    faded = clip.copy()
    faded[:size] *= ramp
    faded[len(clip) - size :] *= ramp[::-1]
    return faded
