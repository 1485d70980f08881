"""What several commands share: options, finding and loading a tokenizer, the exit codes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spintok.cli.progress import progress_display

if TYPE_CHECKING:
    from spintok.tokenizer import Tokenizer

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "USAGE",
    "Device",
    "Offline",
    "Quiet",
    "TokenizerName",
    "find_tokenizers",
    "load_tokenizer",
]

FAILED = 1
USAGE = 2
INTERRUPTED = 130

Device = Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1; auto takes a GPU when there is one.")]
Offline = Annotated[
    bool | None,
    # Not given, it is None, and the library reads SPINTOK_OFFLINE, which is for the registry's downloads only.
    typer.Option("--offline", help="Download nothing; SPINTOK_OFFLINE=1 holds for all commands.", show_default=False),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
TokenizerName = Annotated[str | None, typer.Option("--tokenizer", "-t", help="A name (spintok list) or a folder.")]


def load_tokenizer(name: str | None, device: str, offline: bool | None, quiet: bool) -> "Tokenizer":
    """The tokenizer of that name or folder, the default for None, on the device that was asked for."""
    import torch

    from spintok.tokenizer import load

    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    with progress_display(quiet=quiet, unit="bytes") as progress:
        return load(name, device=where, offline=offline, progress=progress)


def find_tokenizers(names: Sequence[str], offline: bool | None, quiet: bool) -> dict[str, Path]:
    """The folders of those of the names that ship or are in a registry, which are downloaded as need be."""
    from spintok.hub import registry

    known = registry.known() if names else {}
    with progress_display(quiet=quiet, unit="bytes") as progress:
        return {name: registry.find(name, offline=offline, progress=progress) for name in names if name in known}
