"""``spintok save``."""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from spintok.cli.options import Offline, Quiet, load_tokenizer

__all__ = ["EPILOG", "save"]

EPILOG = """Examples:

  spintok save my-tokenizer/ small/ --dtype float16              half the size

  spintok save hubert_spin_128.ckpt spin-128/                    a released checkpoint as a folder

  spintok save my-tokenizer/ out/ --name team-100 --url https://example.org/team-100 >> registry.toml

With --url it prints the entry for a registry file, which SPINTOK_REGISTRY names."""


def save(
    tokenizer: Annotated[str, typer.Argument(help="A name (spintok list), a folder, or a released checkpoint.")],
    folder: Annotated[Path, typer.Argument(help="The folder to write.")],
    dtype: Annotated[
        Literal["float32", "float16"], typer.Option(help="Of the stored weights; float16 rounds them.")
    ] = "float32",
    name: Annotated[str | None, typer.Option(help="What the tokenizer is called; its name stays by default.")] = None,
    url: Annotated[
        str | None, typer.Option(help="The address under which the folder's files will lie: print a registry entry.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="For the entry; the model card's by default.")] = None,
    description: Annotated[str | None, typer.Option(help="For the entry; the model card's by default.")] = None,
    offline: Offline = None,
    quiet: Quiet = False,
) -> None:
    """A tokenizer as a folder to give away: configuration, weights, model card, and nothing of its training."""
    from spintok.hub import registry
    from spintok.hub.registry_file import write_entry

    if url is None and (licence is not None or description is not None):
        raise ValueError("--licence and --description are for the registry entry: add --url ADDRESS")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: is there already; name another folder")
    loaded = load_tokenizer(tokenizer, "cpu", offline, quiet)
    loaded.name = loaded.name if name is None else name
    source = Path(tokenizer) if Path(tokenizer).exists() else registry.find(tokenizer)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        # The folder appears when it is whole.
        made = Path(scratch) / "tokenizer"
        loaded.save(made, dtype=dtype)
        if (source / "README.md").is_file():
            shutil.copyfile(source / "README.md", made / "README.md")
        entry = None
        if url is not None:
            entry = write_entry(registry.describe(made, url, licence=licence, description=description))
        made.replace(folder)
    if entry is not None:
        print(entry, end="")
    if not quiet:
        size = sum(path.stat().st_size for path in folder.iterdir())
        # Standard output is the entry's.
        print(f"{folder}: tokenizer {loaded.name} in {dtype}, {size / 1e6:.2f} MB", file=sys.stderr)
