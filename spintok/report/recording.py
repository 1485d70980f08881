"""The page of one recording: its audio, its spectrogram, and its tokens and phones over time."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from spintok.data.audio import AudioError
from spintok.data.labels.alignment_files import read_alignments
from spintok.data.labels.alignments import Alignment, Interval, match
from spintok.decoder import Decoder
from spintok.frames import SAMPLE_RATE
from spintok.report.audio_view import BANDS, MEL_RATE, OUTLINE_RATE, data_uri, mel_image, outline
from spintok.report.charts import Table
from spintok.report.page import number, render
from spintok.tokenizer import Tokenizer
from spintok.tokens import Tokens

__all__ = ["MOST_SECONDS", "recording_report"]

MOST_SECONDS = 600
"""The longest recording that a page can show; 10 minutes make a page of about 9 MB."""


def recording_report(
    path: Path,
    tokenizers: Tokenizer | Sequence[Tokenizer],
    *,
    alignments: Path | None = None,
    decoders: Sequence[Decoder] = (),
) -> str:
    """The page of an audio file of at most MOST_SECONDS.

    Args:
        path: the audio file.
        tokenizers: one tokenizer, or several with different names to compare. The page has all of their codebooks; it
            opens with the primary one of each.
        alignments: phones and words of the recording, under the file's name without extension.
        decoders: speak the tokens of the codebooks that they belong to, so that the page has what the tokens say beside
            the recording.

    Raises:
        AudioError: the file cannot be read, or is too long.
        ValueError: the alignments cannot be used or are of other files, or two tokenizers have the same name, or
            a decoder belongs to no codebook of the tokenizers.
    """
    compared = [tokenizers] if isinstance(tokenizers, Tokenizer) else list(tokenizers)
    names = [tokenizer.name for tokenizer in compared]
    if len(set(names)) < len(names):
        raise ValueError(f"tokenizers need different names to be told apart, got {', '.join(names)}")
    aligned = Alignment() if alignments is None else match([path.stem], read_alignments(alignments))[path.stem]
    waveform = _read(compared[0], path)
    tokens = {one.name: one.encode_recordings([one.record(path)])[0] for one in compared}
    audio, audio_format = data_uri(waveform.numpy())
    spoken = [_spoken(decoder, compared, tokens, len(decoders) == 1) for decoder in decoders]
    lanes = _label_lanes({"phones": aligned.phones, "words": aligned.words}) + _token_lanes(tokens)
    data = {
        "seconds": len(waveform) / SAMPLE_RATE,
        "outline": {"rate": OUTLINE_RATE, "pairs": _base64(outline(waveform.numpy()).tobytes())},
        "mel": {"rate": MEL_RATE, "bands": BANDS, "levels": _base64(mel_image(waveform.numpy()).tobytes())},
        "lanes": lanes,
    }
    return render(
        "recording",
        data,
        title=path.name,
        tokenizers=[(one.name, one.fingerprint) for one in compared],
        seconds=len(waveform) / SAMPLE_RATE,
        sound=audio,
        sound_format=audio_format,
        spoken=spoken,
        lanes=[{"name": lane["name"], "coded": "units" in lane, "shown": lane["shown"]} for lane in lanes],
        summary=_summary(tokens),
    )


def _spoken(
    decoder: Decoder, tokenizers: Sequence[Tokenizer], tokens: Mapping[str, Mapping[str, Tokens]], alone: bool
) -> dict[str, Any]:
    """What a decoder makes of the tokens that it belongs to, and how the page calls it."""
    source = decoder.source
    for tokenizer in tokenizers:
        if tokenizer.fingerprint == source.fingerprint and source.codebook in tokens[tokenizer.name]:
            break
    else:
        raise ValueError(
            f"decoder {decoder.name!r} speaks codebook {source.codebook!r} of {source.tokenizer} "
            f"({source.fingerprint[:12]}), which is none of the tokenizers here"
        )
    lanes = [(one, book) for one, books in tokens.items() for book in books]
    name = _lane_name(tokens, tokenizer.name, source.codebook)
    sound, _ = data_uri(decoder.decode(tokens[tokenizer.name][source.codebook]).numpy())
    return {
        "lane": lanes.index((tokenizer.name, source.codebook)),
        "label": "What the tokens say" if alone else f"What {name} says",
        "codebook": name,
        "decoder": decoder.name,
        "voice": decoder.voices[0],
        "sound": sound,
    }


def _read(tokenizer: Tokenizer, path: Path) -> torch.Tensor:
    parts: list[torch.Tensor] = []
    for block in tokenizer.record(path).blocks():
        parts.append(block)
        if sum(map(len, parts)) > MOST_SECONDS * SAMPLE_RATE:
            raise AudioError(
                f"{path}: longer than the {MOST_SECONDS // 60} minutes that a page can show; cut out a part"
            )
    return torch.cat(parts)


def _label_lanes(intervals: Mapping[str, Sequence[Interval]]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "shown": True,
            "labels": [interval.label for interval in found],
            "times": [[interval.start, interval.end] for interval in found],
        }
        for name, found in intervals.items()
        if found
    ]


def _token_lanes(tokens: Mapping[str, Mapping[str, Tokens]]) -> list[dict[str, Any]]:
    """The runs of each codebook of each tokenizer; only primary codebooks are shown at first."""
    return [
        {
            "name": _lane_name(tokens, tokenizer, codebook),
            "shown": place == 0,
            "units": found.units.tolist(),
            "durations": found.durations.tolist(),
            "frameRate": found.frame_rate,
        }
        for tokenizer, books in tokens.items()
        for place, (codebook, found) in enumerate(books.items())
    ]


def _lane_name(tokens: Mapping[str, Any], tokenizer: str, codebook: str) -> str:
    return codebook if len(tokens) == 1 else f"{tokenizer}, {codebook}"


def _summary(tokens: Mapping[str, Mapping[str, Tokens]]) -> Table:
    """One row per codebook."""
    head = ("codebook", "tokens", "tokens a second", "codewords used", "frames a token")
    rows = [
        (
            _lane_name(tokens, tokenizer, codebook),
            f"{found.units.size:,}",
            f"{found.units.size / found.seconds:.2f}" if found.num_frames else "0",
            f"{len(set(found.units.tolist())):,} of {found.codebook_size:,}",
            number(found.num_frames / found.units.size) if found.units.size else "0",
        )
        for tokenizer, books in tokens.items()
        for codebook, found in books.items()
    ]
    return Table.of(head, rows)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
