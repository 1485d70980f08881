"""``spintok decode``."""

import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spintok.cli.options import Device, Quiet
from spintok.cli.output import say
from spintok.cli.progress import progress_display

if TYPE_CHECKING:
    from spintok.decoder import Decoder
    from spintok.tokens import Tokens

__all__ = ["EPILOG", "decode"]

EPILOG = """Examples:

  spintok decode wav-tokens/ again/                             a token folder, to a .wav for each utterance

  spintok encode speech.flac | spintok decode - > again.wav     one recording, through pipes

  spintok decode wav-tokens/ again/ --decoder my-voice/         by a decoder that spintok train wrote

  spintok decode wav-tokens/ again/ --predict-durations         as if only the units were known"""


def decode(
    source: Annotated[
        str, typer.Argument(help="A folder that spintok encode wrote, or - for what it writes to standard output.")
    ],
    output: Annotated[
        Path | None, typer.Argument(help="The folder to write; for -, standard output.", show_default=False)
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option(help="The decoder: a folder, or the name of one that ships (default: the one for these tokens)."),
    ] = None,
    codebook: Annotated[
        str | None, typer.Option(help="The codebook whose tokens to decode (default: the first of the source).")
    ] = None,
    voice: Annotated[
        str | None, typer.Option(help="One of the decoder's voices (default: its first).", show_default=False)
    ] = None,
    predict_durations: Annotated[
        bool, typer.Option("--predict-durations", help="Take the units only, and predict how long each lasts.")
    ] = False,
    device: Device = "cpu",
    quiet: Quiet = False,
) -> None:
    """Turn tokens into speech, to hear what they keep: .wav files at 16 kHz.

    The words and their timing come from the tokens, the voice from the decoder, and the intonation from both.
    """
    if source == "-":
        if output is not None:
            raise ValueError("speech of standard input goes to standard output: leave the output folder out")
        _pipe(decoder, codebook, voice, predict_durations, device)
        return
    if output is None:
        raise ValueError("name the folder to write the .wav files to, as the second argument")
    _folder(Path(source), output, decoder, codebook, voice, predict_durations, device, quiet)


def _folder(
    source: Path,
    output: Path,
    decoder: str | None,
    codebook: str | None,
    voice: str | None,
    predict_durations: bool,
    device: str,
    quiet: bool,
) -> None:
    from spintok._files import atomic
    from spintok.corpus.tokens import read_corpus

    description, records = read_corpus(source)
    sizes = description["codebooks"]
    name = _chosen(codebook, list(sizes), str(source))
    made = _open(decoder, str(description["tokenizer"]), str(description["fingerprint"]), name, sizes[name], device)
    made.check_voice(voice)
    started, seconds, done = time.monotonic(), 0.0, 0
    with progress_display(quiet=quiet, unit="files") as display:
        for record in records:
            display("decoding", done, int(description["utterances"]), "")
            data, length = _wav(made, record.tokens[name], voice, predict_durations)
            path = _inside(output, record.key)
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as temporary:
                temporary.write_bytes(data)
            done, seconds = done + 1, seconds + length
        display("decoding", done, int(description["utterances"]), "")
    if not quiet:
        speed = seconds / max(time.monotonic() - started, 1e-9)
        say(f"{output}: {done} files by {made.describe()}; {seconds / 3600:.2f} h, {speed:.0f} x real time")


def _pipe(decoder: str | None, codebook: str | None, voice: str | None, predict_durations: bool, device: str) -> None:
    from spintok.corpus.token_line import read_token_line

    lines = _lines()
    found = read_token_line(next(lines, ""))
    if next(lines, None) is not None:
        raise ValueError("standard input has several lines, but one .wav is written: encode and decode a folder")
    name = _chosen(codebook, list(found.tokens), "standard input")
    tokens = found.tokens[name]
    made = _open(decoder, found.tokenizer, found.fingerprint, name, tokens.codebook_size, device)
    data, _ = _wav(made, tokens, voice, predict_durations)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _lines() -> Iterator[str]:
    return (line for line in sys.stdin if line.strip())


def _chosen(codebook: str | None, names: list[str], where: str) -> str:
    if codebook is not None and codebook not in names:
        raise ValueError(f"{where}: has no tokens of codebook {codebook!r}, only of {', '.join(names)}")
    return names[0] if codebook is None else codebook


def _open(decoder: str | None, tokenizer: str, fingerprint: str, codebook: str, size: int, device: str) -> "Decoder":
    """The decoder for these tokens. Raises ``ValueError`` when there is none, or it reads others."""
    from spintok.decoder import find_decoder, load_decoder

    made = find_decoder(tokenizer, fingerprint, codebook) if decoder is None else load_decoder(decoder)
    made.check(fingerprint, codebook, size)
    return made.to(device)


def _wav(made: "Decoder", tokens: "Tokens", voice: str | None, predict_durations: bool) -> tuple[bytes, float]:
    """A .wav file in 16 bits, and its duration in seconds."""
    import soundfile

    waveform = made.decode_units(tokens.units, voice) if predict_durations else made.decode(tokens, voice)
    file = io.BytesIO()
    soundfile.write(file, waveform.numpy(), made.sample_rate, format="WAV", subtype="PCM_16")
    return file.getvalue(), len(waveform) / made.sample_rate


def _inside(folder: Path, key: str) -> Path:
    """The file of an utterance. Raises ``ValueError`` for a key that leads out of the folder."""
    path = folder / f"{key}.wav"
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"the key {key!r} names a file outside {folder}")
    return path
