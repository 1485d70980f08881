"""``spintok stream``."""

import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from spintok.cli.options import Device, Offline, Quiet, TokenizerName, load_tokenizer
from spintok.cli.output import say

if TYPE_CHECKING:
    from spintok.streaming.tokens import StreamTokens
    from spintok.streaming.turns import TurnEvent

__all__ = ["EPILOG", "stream"]

EPILOG = """Examples:

  arecord -q -t raw -f S16_LE -r 16000 | spintok stream       a microphone on Linux

  ffmpeg -v quiet -i talk.mp3 -f s16le -ac 1 -ar 16000 - | spintok stream --latency 640ms
  spintok stream --microphone --header -t dc-spin-stream-10m-en | spintok decode - > again.wav

  spintok stream --turns < speech.raw                         where speech starts and ends, too

  spintok stream --microphone                                 through PortAudio, with the extra "microphone" """

_READ = 1 << 16


def stream(
    rate: Annotated[int, typer.Option(help="Samples per second of the input.")] = 16_000,
    format: Annotated[
        Literal["s16le", "s32le", "f32le"],
        typer.Option(help="The samples of the input: 16 or 32 bits, or floats, little-endian, one channel."),
    ] = "s16le",
    latency: Annotated[str, typer.Option(help="When a code is final at the latest, such as 80ms or 0.32s.")] = "320ms",
    microphone: Annotated[
        bool, typer.Option("--microphone", help="Record from the microphone instead of reading standard input.")
    ] = False,
    input_device: Annotated[
        str | None,
        typer.Option(help="The microphone: a number or a name that `python -m sounddevice` lists.", show_default=False),
    ] = None,
    turns: Annotated[
        bool, typer.Option("--turns", help='Also print where speech starts and ends; with the extra "turns".')
    ] = False,
    header: Annotated[
        bool, typer.Option("--header", help="First print what makes the codes, which `spintok decode -` needs.")
    ] = False,
    tokenizer: TokenizerName = None,
    codebook: Annotated[
        str | None, typer.Option(help="The codebook to use (default: the primary one).", show_default=False)
    ] = None,
    device: Device = "auto",
    offline: Offline = None,
    quiet: Quiet = False,
) -> int:
    """Tokens while audio arrives: raw samples on standard input, or the microphone, to a line of JSON for each chunk.

    A line has the start and end of its frames in seconds, their codes, the runs of equal codes (units and durations),
    and whether the first run goes on from the line before. The codes are those of spintok encode --latency. With
    --turns, lines with an event, speech_start or speech_end, come between them.
    """
    from spintok.corpus.token_line import stream_header
    from spintok.streaming.policy import parse_latency
    from spintok.streaming.turns import TurnDetector

    if input_device is not None and not microphone:
        raise ValueError("--input-device is for the microphone: add --microphone")
    loaded = load_tokenizer(tokenizer, device, offline, quiet)
    opened = loaded.stream(parse_latency(latency), codebook=codebook)
    detector = TurnDetector() if turns else None
    if header:
        print(stream_header(loaded.at(opened.latency), loaded.codebook(codebook).config.name), flush=True)
    if not quiet and (microphone or sys.stdin.isatty()):
        source = "the microphone" if microphone else "standard input"
        say(f"{loaded.name}, latency {opened.latency:g} s: reading {source}; Ctrl-C ends", file=sys.stderr)
    try:
        for samples in _microphone(rate, input_device) if microphone else _standard_input(format):
            heard = opened.feed(samples, rate)
            if detector is not None:
                _print_events(detector.push(heard))
            for tokens in opened.steps():
                _print(tokens)
    except KeyboardInterrupt:
        if not microphone:
            raise
        # This is how one stops to speak.
    heard = opened.finish()
    if detector is not None:
        _print_events([*detector.push(heard), *detector.close()])
    for tokens in opened.steps():
        _print(tokens)
    return 0


def _microphone(rate: int, device: str | None) -> Iterator[Any]:
    from spintok.data.microphone import microphone_blocks

    return microphone_blocks(rate, device)


_CONTAINERS = (b"RIFF", b"fLaC", b"OggS", b"ID3")
"""How wav, flac, ogg and most mp3 files begin; as samples they would become tokens of noise."""


def _standard_input(format: str) -> Iterator[Any]:
    """Samples as they arrive; a sample may arrive in two pieces."""
    import numpy as np

    kind = np.dtype({"s16le": "<i2", "s32le": "<i4", "f32le": "<f4"}[format])
    rest, begun = b"", False
    while data := os.read(sys.stdin.fileno(), _READ):
        rest += data
        if not begun and rest.startswith(_CONTAINERS):
            raise ValueError(
                "standard input is an audio file, not raw samples: decode it first (ffmpeg -i FILE -f s16le -ac 1 "
                "-ar 16000 -), or use spintok encode FILE --latency"
            )
        begun = True
        whole = len(rest) - len(rest) % kind.itemsize
        yield np.frombuffer(rest[:whole], dtype=kind)
        rest = rest[whole:]
    if rest:
        raise ValueError(f"the input ends inside a sample: {len(rest)} of {kind.itemsize} bytes; is it {format}?")


def _print_events(events: "list[TurnEvent]") -> None:
    for event in events:
        row = {"event": event.kind, "seconds": round(event.seconds, 3), "found": round(event.found, 3)}
        print(json.dumps(row), flush=True)


def _print(tokens: "StreamTokens") -> None:
    row = {
        "start": round(tokens.start / tokens.frame_rate, 6),
        "end": round((tokens.start + tokens.num_frames) / tokens.frame_rate, 6),
        "codes": tokens.codes.tolist(),
        "units": tokens.units.tolist(),
        "durations": tokens.durations.tolist(),
        "continues": tokens.continues,
    }
    print(json.dumps(row), flush=True)
