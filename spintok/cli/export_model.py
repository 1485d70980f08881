"""``spintok export-model``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from spintok.cli.options import Offline, Quiet, complete_tokenizer, load_tokenizer
from spintok.cli.output import say

__all__ = ["EPILOG", "export_model"]

EPILOG = """Examples:

  spintok export-model dc-spin-10m-en --to onnx -o dc-spin.onnx

  spintok export-model dc-spin-10m-en --to onnx -o dc-spin-500.onnx --codebook units-500

  spintok export-model my-tokenizer/ --to onnx -o mine.onnx --sample recordings/     checked on your own speech

The graph takes audio, any number of float32 samples at 16 kHz, and gives codes, int32. The file is written only if ONNX
Runtime gives at least 99.9 % of the codes that spintok gives. It needs pip install 'spintok[onnx]'."""


def export_model(
    tokenizer: Annotated[
        str,
        typer.Argument(
            help="Tokenizer to export: a name (spintok list), a folder, or ORG/NAME on the Hub.",
            autocompletion=complete_tokenizer,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    to: Annotated[Literal["onnx"], typer.Option(help="Format to write.")] = "onnx",
    codebook: Annotated[str | None, typer.Option(help="Codebook to use (default: the primary one).")] = None,
    sample: Annotated[
        Path | None,
        typer.Option(
            help="Recordings to check the file on: a folder, an audio file or a manifest (default: a synthetic signal)."
        ),
    ] = None,
    offline: Offline = None,
    quiet: Quiet = False,
) -> None:
    """Write a tokenizer as a graph that runs without spintok and torch."""
    from spintok.data.audio import read
    from spintok.data.manifest import scan
    from spintok.onnx import export_onnx

    recordings = None if sample is None else [read(utterance.path) for utterance in scan(sample)]
    loaded = load_tokenizer(tokenizer, "cpu", offline, quiet)
    done = export_onnx(loaded, output, codebook=codebook, sample=recordings)
    if not quiet:
        share = f"{done.equal:,} of {done.frames:,} codes as spintok's ({done.equal / done.frames:.2%})"
        say(f"{done.path}: {done.size / 1e6:.1f} MB, codebook {done.codebook}; ONNX Runtime {done.runtime}: {share}")
