"""What several commands share: options, finding and loading a tokenizer, the exit codes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from spintok.hub.download import Progress
    from spintok.tokenizer import Tokenizer

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "USAGE",
    "Device",
    "Offline",
    "Quiet",
    "TokenizerName",
    "download_bar",
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
    with download_bar(quiet) as progress:
        return load(name, device=where, offline=offline, progress=progress)


def find_tokenizers(names: Sequence[str], offline: bool | None, quiet: bool) -> dict[str, Path]:
    """The folders of those of the names that ship or are in a registry, which are downloaded as need be."""
    from spintok.hub import registry

    known = registry.known() if names else {}
    with download_bar(quiet) as progress:
        return {name: registry.find(name, offline=offline, progress=progress) for name in names if name in known}


@contextmanager
def download_bar(quiet: bool) -> "Iterator[Progress]":
    """A callback that draws a bar on a terminal and prints a line a file elsewhere; before it is called, nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True, quiet=quiet, soft_wrap=True, highlight=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console, disable=not console.is_terminal)
    tasks = {}

    def progress(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total)
            bar.start()
            if not console.is_terminal:
                console.print(f"downloading {what}, {total / 1e6:.1f} MB")
        bar.update(tasks[what], completed=done)

    try:
        yield progress
    finally:
        if tasks and console.is_terminal:
            bar.stop()
