"""``spintok save``."""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from spintok.cli.options import Offline, Quiet, complete_tokenizer, find_model_card, load_tokenizer
from spintok.cli.output import say

__all__ = ["EPILOG", "save"]

EPILOG = """Examples:

  spintok save my-tokenizer/ small/ --dtype float16              half the size

  spintok save hubert_spin_128.ckpt spin-128/                    convert a released Spin checkpoint

  spintok save my-tokenizer/ out/ --name team-100 --url https://example.org/team-100 >> registry.toml

With --url, standard output gets an entry for a registry file. Whoever lists that file in SPINTOK_REGISTRY can load the
tokenizer by its name."""


def save(
    tokenizer: Annotated[
        str,
        typer.Argument(
            help="Tokenizer to copy: a name (spintok list), a folder, or a released Spin checkpoint.",
            autocompletion=complete_tokenizer,
        ),
    ],
    folder: Annotated[Path, typer.Argument(help="Folder to create. It must not exist, or be empty.")],
    dtype: Annotated[
        Literal["float32", "float16"],
        typer.Option(help="Type to store the weights in. float16 halves the size and rounds the weights."),
    ] = "float32",
    name: Annotated[
        str | None, typer.Option(help="Name to store in the copy. By default it keeps the tokenizer's name.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="Address at which you will publish FOLDER. Prints a registry entry with its files."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence in the registry entry. By default that of the model card (README.md).")
    ] = None,
    description: Annotated[
        str | None, typer.Option(help="One-line description in the registry entry. By default the model card's.")
    ] = None,
    offline: Offline = None,
    quiet: Quiet = False,
) -> None:
    """Copy a tokenizer to a folder to publish: configuration, weights and model card, without training state."""
    from spintok.hub import registry
    from spintok.hub.registry_file import write_entry

    if url is None and (licence is not None or description is not None):
        raise ValueError("--licence and --description are for the registry entry: add --url ADDRESS")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: is not an empty folder; choose another one")
    loaded = load_tokenizer(tokenizer, "cpu", offline, quiet)
    loaded.name = loaded.name if name is None else name
    card = find_model_card(tokenizer, offline)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        # Renamed at the end, so that the folder appears only when it is complete.
        made = Path(scratch) / "tokenizer"
        loaded.save(made, dtype=dtype)
        if card is not None:
            shutil.copyfile(card, made / "README.md")
        entry = None
        if url is not None:
            entry = write_entry(registry.make_entry(made, url, licence=licence, description=description))
        made.replace(folder)
    if entry is not None:
        print(entry, end="")
    if not quiet:
        size = sum(path.stat().st_size for path in folder.iterdir())
        # Standard output may be redirected to a registry file.
        say(f"{folder}: tokenizer {loaded.name} in {dtype}, {size / 1e6:.2f} MB", file=sys.stderr)
