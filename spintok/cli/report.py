"""``spintok report``."""

from pathlib import Path
from typing import Annotated

import typer

from spintok.cli.options import Device, Offline, Quiet, TokenizerName, given, load_tokenizer
from spintok.cli.output import say

__all__ = ["EPILOG", "report"]

EPILOG = """Examples:

  spintok report wav-tokens/                                     a folder of tokens

  spintok report wav-tokens/ --alignments phones.jsonl --evaluation my-evaluation/evaluation.json

  spintok report speech.flac --tokenizer my-tokenizer -o speech.html"""


def report(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="A token folder, or an audio file of at most 10 minutes.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write.")] = Path("report.html"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    tokenizer: TokenizerName = None,
    codebook: Annotated[
        str | None, typer.Option(help="The codebook of a token folder to show (default: the first one).")
    ] = None,
    alignments: Annotated[
        Path | None,
        typer.Option(help="Phone alignments: a .TextGrid file or a folder of them, .ctm, .tsv at 100 Hz, .jsonl."),
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="The evaluation.json of the tokenizer that made the token folder.")
    ] = None,
    device: Device = "auto",
    offline: Offline = None,
    quiet: Quiet = False,
) -> None:
    """Write one HTML file, which needs no network, that shows a token folder or a recording.

    An existing file is replaced only with --overwrite.
    """
    from spintok._files import atomic
    from spintok.report import corpus_report, recording_report

    if output.exists() and not overwrite:
        # Checked before the work, and for every name: a page with notes or a link to it must not vanish.
        raise ValueError(f"{output}: exists already; choose another name with -o, or add --overwrite")
    if source.is_dir():
        if given(context, "tokenizer"):
            raise ValueError("--tokenizer is for audio; a token folder has its tokens already")
        page = corpus_report(source, codebook=codebook, alignments=alignments, evaluation=evaluation)
    else:
        for name, value in (("--codebook", codebook), ("--evaluation", evaluation)):
            if value is not None:
                raise ValueError(f"{name} is for token folders; the page of a recording shows all codebooks")
        page = recording_report(source, load_tokenizer(tokenizer, device, offline, quiet), alignments=alignments)
    with atomic(output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    if not quiet:
        say(f"{output}: {len(page.encode()) / 1e6:.1f} MB; open it in a browser")
