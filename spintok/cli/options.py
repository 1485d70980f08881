"""What several commands share: options, loading a tokenizer, the exit codes."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from spintok.tokenizer import Tokenizer

__all__ = ["FAILED", "INTERRUPTED", "USAGE", "Device", "Quiet", "TokenizerName", "load_tokenizer"]

FAILED = 1
USAGE = 2
INTERRUPTED = 130

Device = Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1; auto takes a GPU when there is one.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
TokenizerName = Annotated[str | None, typer.Option("--tokenizer", "-t", help="A name (spintok list) or a folder.")]


def load_tokenizer(name: str | None, device: str) -> "Tokenizer":
    """The tokenizer of that name or folder, the default for None, on the device that was asked for."""
    import torch

    from spintok.tokenizer import load

    return load(name, device=("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
