"""``spintok download``."""

from typing import Annotated

import typer

from spintok.cli.options import Quiet, find_tokenizers

__all__ = ["EPILOG", "download"]

EPILOG = """Examples:

  spintok download NAME                                 to the cache, ~/.cache/spintok

  SPINTOK_CACHE=/shared/spintok spintok download NAME   for machines without a network, which set the same variable

  spintok list                                          the names, and what is there already"""


def download(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Tokenizers of a registry.")],
    quiet: Quiet = False,
) -> None:
    """Fetch tokenizers ahead of time, so that they load without a network; prints their folders."""
    from spintok.hub import registry

    known = registry.known()
    for name in names:
        if name not in known:
            raise ValueError(f"unknown tokenizer {name!r}; known: {', '.join(known)}")
    # What is asked for by this name is the network, whatever SPINTOK_OFFLINE says of other commands.
    for folder in find_tokenizers(names, False, quiet).values():
        print(folder)
