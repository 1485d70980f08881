"""``spintok download``."""

from typing import Annotated

import typer

from spintok.cli.options import Quiet, find_tokenizers

__all__ = ["EPILOG", "download"]

EPILOG = """Examples:

  spintok download NAME                                 to the cache, ~/.cache/spintok

  SPINTOK_CACHE=/shared/spintok spintok download NAME   to another cache; set the variable where you load NAME, too

  spintok list                                          show the names, and which are downloaded"""


def download(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Tokenizers to download, by their names in spintok list.")
    ],
    quiet: Quiet = False,
) -> None:
    """Download tokenizers ahead of time, so that they load without a network; prints their folders."""
    from spintok.hub import registry

    known = registry.known()
    for name in names:
        if name not in known:
            raise ValueError(f"unknown tokenizer {name!r}; known: {', '.join(known)}")
    # This command is for downloading, so SPINTOK_OFFLINE does not apply to it.
    for folder in find_tokenizers(names, False, quiet).values():
        print(folder)
