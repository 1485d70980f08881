"""``spintok decode``."""

import io
import sys
import time
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
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Write to a folder that is not empty, and replace files of the same names."),
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
        if overwrite:
            raise ValueError("--overwrite is for a folder of speech, and one recording goes to standard output")
        _pipe(decoder, codebook, voice, predict_durations, device)
        return
    if output is None:
        raise ValueError("name the folder to write the .wav files to, as the second argument")
    if output.is_file():
        raise ValueError(f"{output}: is a file, but the second argument is the folder to write")
    if not overwrite and output.is_dir() and any(output.iterdir()):
        # It may be the folder of the recordings, whose names the new files would have.
        raise ValueError(f"{output}: is not empty; name another folder, or add --overwrite")
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
    latency = description.get("latency")
    how = (latency if isinstance(latency, float | int) else None, str(description.get("precision", "float32")))
    wanted = (str(description["tokenizer"]), str(description["fingerprint"]), name)
    made = _open(decoder, wanted, sizes[name], how, device)
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
    from spintok.corpus.token_line import read_token_lines

    found = read_token_lines(line for line in sys.stdin if line.strip())
    name = _chosen(codebook, list(found.tokens), "standard input")
    tokens = found.tokens[name]
    wanted = (found.tokenizer, found.fingerprint, name)
    made = _open(decoder, wanted, tokens.codebook_size, (found.latency, found.precision), device)
    data, _ = _wav(made, tokens, voice, predict_durations)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _chosen(codebook: str | None, names: list[str], where: str) -> str:
    if codebook is not None and codebook not in names:
        raise ValueError(f"{where}: has no tokens of codebook {codebook!r}, only of {', '.join(names)}")
    return names[0] if codebook is None else codebook


def _open(
    decoder: str | None, wanted: tuple[str, str, str], size: int, how: tuple[float | None, str], device: str
) -> "Decoder":
    """The decoder for tokens of a tokenizer, its fingerprint and a codebook, computed at a latency and in a precision.

    Raises ``ValueError`` when there is none, or it reads others.
    """
    from spintok.decoder import find_decoder, load_decoder
    from spintok.loading import find_device

    place = find_device(device)
    made = find_decoder(*wanted, *how) if decoder is None else load_decoder(decoder)
    made.check(*wanted[1:], size)
    return made.to(place)


def _wav(made: "Decoder", tokens: "Tokens", voice: str | None, predict_durations: bool) -> tuple[bytes, float]:
    """A .wav file in 16 bits, and its duration in seconds."""
    import soundfile

    waveform = made.decode_units(tokens.units, voice) if predict_durations else made.decode(tokens, voice)
    file = io.BytesIO()
    soundfile.write(file, waveform.numpy(), made.sample_rate, format="WAV", subtype="PCM_16")
    return file.getvalue(), len(waveform) / made.sample_rate


def _inside(folder: Path, key: str) -> Path:
    """The file of an utterance. Raises ``ValueError`` for a key that leads out of the folder."""
    # Tokens in fairseq's format have no keys but the paths of the files.
    path = folder / f"{key.lstrip('/')}.wav"
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"the key {key!r} names a file outside {folder}")
    return path
