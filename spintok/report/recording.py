"""The page of one recording: its sound, its spectrogram, and its tokens and phones along time."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from spintok.data.alignments import Alignment, Interval, match, read_alignments
from spintok.data.audio import AudioError
from spintok.frames import FRAME_RATE, SAMPLE_RATE
from spintok.report.audio_view import BANDS, MEL_RATE, OUTLINE_RATE, data_uri, mel_image, outline
from spintok.report.page import number, render
from spintok.tokenizer import Tokenizer
from spintok.tokens import Tokens

__all__ = ["MOST_SECONDS", "recording_report"]

MOST_SECONDS = 600
"""The longest recording that a page holds: 10 minutes make some 9 MB."""


def recording_report(path: Path, tokenizer: Tokenizer, *, alignments: Path | None = None) -> str:
    """The page of an audio file of at most MOST_SECONDS.

    Args:
        path: the audio file.
        tokenizer: whose codebooks are shown, all of them.
        alignments: its phones and words, under the file's name without the extension.

    Raises:
        AudioError: the file cannot be read, or is longer.
        ValueError: the alignments cannot be used, or are of other files.
    """
    aligned = Alignment() if alignments is None else match([path.stem], read_alignments(alignments))[path.stem]
    recording = tokenizer.record(path)
    held: list[torch.Tensor] = []
    for block in recording.blocks():
        held.append(block)
        if sum(map(len, held)) > MOST_SECONDS * SAMPLE_RATE:
            raise AudioError(f"{path}: longer than the {MOST_SECONDS // 60} minutes that a page holds; cut out a part")
    waveform = torch.cat(held).numpy()
    (tokens,) = tokenizer.encode_recordings([recording])
    sound, sound_format = data_uri(waveform)
    seconds = len(waveform) / SAMPLE_RATE
    lanes = _lanes(tokens, {"phones": aligned.phones, "words": aligned.words})
    data = {
        "seconds": seconds,
        "frameRate": FRAME_RATE,
        "outline": {"rate": OUTLINE_RATE, "pairs": _base64(outline(waveform).tobytes())},
        "mel": {"rate": MEL_RATE, "bands": BANDS, "levels": _base64(mel_image(waveform).tobytes())},
        "lanes": lanes,
    }
    return render(
        "recording",
        data,
        title=path.name,
        tokenizer=tokenizer.name,
        fingerprint=tokenizer.fingerprint,
        seconds=seconds,
        sound=sound,
        sound_format=sound_format,
        lanes=[lane["name"] for lane in lanes],
        summary=_summary(tokens),
    )


def _lanes(tokens: Mapping[str, Tokens], intervals: Mapping[str, Sequence[Interval]]) -> list[dict[str, Any]]:
    """What lies along time: labels that were given, then runs of each codebook."""
    spoken: list[dict[str, Any]] = [
        {"name": name, "labels": [i.label for i in found], "times": [[i.start, i.end] for i in found]}
        for name, found in intervals.items()
        if found
    ]
    runs: list[dict[str, Any]] = [
        {"name": name, "units": found.units.tolist(), "durations": found.durations.tolist()}
        for name, found in tokens.items()
    ]
    return spoken + runs


def _summary(tokens: Mapping[str, Tokens]) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each codebook its name and figures."""
    return [
        (
            name,
            [
                ("tokens", f"{found.units.size:,}"),
                ("tokens a second", f"{found.units.size / found.seconds:.2f}" if found.num_frames else "0"),
                ("codewords used", f"{len(set(found.units.tolist())):,} of {found.codebook_size:,}"),
                ("frames a token", number(found.num_frames / found.units.size) if found.units.size else "0"),
            ],
        )
        for name, found in tokens.items()
    ]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
