"""``spintok report``."""

import os
from pathlib import Path
from typing import Annotated

import typer

from spintok.cli.options import (
    DecoderNames,
    Device,
    Offline,
    Quiet,
    complete_tokenizer,
    distinct_names,
    load_decoders,
    load_tokenizer,
)
from spintok.cli.output import say

__all__ = ["EPILOG", "report"]

EPILOG = """Examples:

  spintok report wav-tokens/                                     a folder of tokens

  spintok report wav-tokens/ --alignments phones.jsonl --evaluation my-evaluation/evaluation.json

  spintok report wav-tokens/ --listen                            hear where each code occurs

  spintok report speech.flac -t my-tokenizer -o speech.html

  spintok report speech.flac -t old/ -t new/                     two tokenizers side by side

  spintok report speech.flac --decoder my-voice/                 hear what the tokens say"""


def report(
    source: Annotated[Path, typer.Argument(help="A token folder, or an audio file of at most 10 minutes.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write.")] = Path("report.html"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    tokenizer: Annotated[
        list[str] | None,
        typer.Option(
            "--tokenizer",
            "-t",
            help="The tokenizer of a recording: a name that `spintok list` shows, or a folder; repeatable. "
            "[env var: SPINTOK_TOKENIZER]",
            autocompletion=complete_tokenizer,
        ),
    ] = None,
    codebook: Annotated[
        str | None, typer.Option(help="The codebook of a token folder to show (default: the first one).")
    ] = None,
    alignments: Annotated[
        Path | None,
        typer.Option(
            help="Phone alignments: TextGrid, JSON, CTM, CSV, TIMIT, HTK or Audacity files, or a folder of them."
        ),
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="The evaluation.json of the tokenizer that made the token folder.")
    ] = None,
    listen: Annotated[
        bool, typer.Option("--listen", help="Include audio of ten places where each code of a token folder occurs.")
    ] = False,
    decoder: DecoderNames = None,
    device: Device = "auto",
    offline: Offline = None,
    quiet: Quiet = False,
) -> None:
    """Write one HTML file, which needs no network, that shows a token folder or a recording.

    An existing file is replaced only with --overwrite.
    """
    from spintok._files import atomic, check_target
    from spintok.report import corpus_report, recording_report

    if output.exists() and not overwrite:
        # Checked before the work, and for every name: a page with notes or a link to it must not vanish.
        raise ValueError(f"{output}: exists already; choose another name with -o, or add --overwrite")
    check_target(output)
    if not source.exists():
        raise ValueError(f"{source}: no such file or folder")
    if source.is_dir():
        if tokenizer:
            raise ValueError("--tokenizer is for audio; a token folder has its tokens already")
        if decoder:
            raise ValueError("--decoder is for audio; it does not speak the tokens of a folder")
        page = corpus_report(source, codebook=codebook, alignments=alignments, evaluation=evaluation, listen=listen)
    else:
        for name, value in (("--codebook", codebook), ("--evaluation", evaluation), ("--listen", listen or None)):
            if value is not None:
                raise ValueError(f"{name} is for token folders; the page of a recording has audio and all codebooks")
        # Click would split the value of an environment variable of a repeatable option at its spaces.
        wanted: list[str | None] = [*tokenizer] if tokenizer else [os.environ.get("SPINTOK_TOKENIZER") or None]
        loaded = [(name or "", load_tokenizer(name, device, offline, quiet)) for name in wanted]
        tokenizers = distinct_names(loaded)
        decoders = load_decoders(decoder, tokenizers)
        page = recording_report(source, tokenizers, alignments=alignments, decoders=decoders)
    with atomic(output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    if not quiet:
        say(f"{output}: {len(page.encode()) / 1e6:.1f} MB; open it in a browser")
