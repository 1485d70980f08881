"""Lhotse's manifests of cuts and recordings, and Shar folders, read as JSON lines; Lhotse itself is not needed.

What these lines hold is described in Lhotse's documentation: https://lhotse.readthedocs.io/en/latest/cuts.html and
https://lhotse.readthedocs.io/en/latest/shar.html.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spintok.data.audio import RATES
from spintok.data.locations.addresses import resolve
from spintok.data.locations.base import Location, Span
from spintok.data.locations.cut import Cut
from spintok.data.locations.remote import File
from spintok.data.utterance import Utterance, as_utf8

__all__ = ["is_lhotse", "lhotse_utterance"]

_CUTS = ("MonoCut", "MultiCut", "MixedCut", "PaddingCut")


def is_lhotse(record: Mapping[str, Any]) -> bool:
    """Whether a line of a manifest describes a cut or a recording of Lhotse."""
    return record.get("type") in _CUTS or (isinstance(record.get("sources"), list) and "sampling_rate" in record)


def lhotse_utterance(
    record: Mapping[str, Any], folder: File, member: Callable[[str], Path | Location] | None = None
) -> Utterance:
    """The utterance of a cut or a recording.

    Args:
        record: the line of the manifest.
        folder: where relative paths start.
        member: where the audio of a cut of a Shar folder is, by its id.

    Raises:
        ValueError: Lhotse would compute the audio from something (a mix, an effect, a command), or the line is damaged.
    """
    try:
        if record.get("type") not in _CUTS:
            return Utterance(as_utf8(str(record["id"])), _whole(record, folder), seconds=float(record["duration"]))
        return _of_cut(record, folder, member)
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(f"a damaged line of Lhotse: {error!r}") from None


def _of_cut(cut: Mapping[str, Any], folder: File, member: Callable[[str], Path | Location] | None) -> Utterance:
    if cut["type"] not in ("MonoCut", "MultiCut"):
        raise ValueError(f"a {cut['type']} has no audio of its own: save the audio, or leave these cuts out")
    recording = cut.get("recording")
    if recording is None:
        raise ValueError(f"the cut {cut['id']!r} has no recording")
    speakers = {str(s["speaker"]) for s in cut.get("supervisions") or () if s.get("speaker") is not None}
    speaker = as_utf8(speakers.pop()) if len(speakers) == 1 else None
    duration = float(cut["duration"])
    path: Path | Location
    if any(source["type"] == "shar" for source in recording["sources"]):
        if member is None:
            raise ValueError("cuts of a Shar folder: name the folder, which has their audio too")
        path = member(str(cut["id"]))
    else:
        path = _part(cut, recording, folder, duration)
    return Utterance(as_utf8(str(cut["id"])), path, speaker, seconds=duration)


def _part(cut: Mapping[str, Any], recording: Mapping[str, Any], folder: File, duration: float) -> Path | Location:
    rate, start = int(recording["sampling_rate"]), float(cut["start"])
    if rate not in RATES:
        raise ValueError(f"the recording {recording['id']!r} has a sampling rate of {rate} Hz")
    wanted = cut["channel"] if isinstance(cut["channel"], list) else [cut["channel"]]
    path, channels = _file(recording, folder, wanted)
    span = Span(start, duration, channels)
    if channels is None and span.samples(rate) == range(int(recording["num_samples"])):
        return path
    return Cut(path, span)


def _whole(recording: Mapping[str, Any], folder: File) -> Path | Location:
    every = [channel for source in recording["sources"] for channel in source["channels"]]
    return _file(recording, folder, every)[0]


def _file(
    recording: Mapping[str, Any], folder: File, wanted: Sequence[int]
) -> tuple[Path | Location, tuple[int, ...] | None]:
    """The file with some channels of a recording, and their places in it; None for all that it has."""
    if recording.get("transforms"):
        raise ValueError(f"the recording {recording['id']!r} has effects (transforms): save the audio with them")
    for source in recording["sources"]:
        held: list[int] = source["channels"]
        if not set(wanted) <= set(held):
            continue
        if source["type"] not in ("file", "url"):
            raise ValueError(
                f"the audio of {recording['id']!r} comes from a source of type {source['type']!r}; spintok reads files "
                "and addresses"
            )
        places = tuple(sorted(held.index(channel) for channel in wanted))
        return resolve(folder, source["source"]), None if len(places) == len(held) else places
    raise ValueError(f"channels {wanted} of the recording {recording['id']!r} are not in one file")
