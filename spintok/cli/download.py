"""``spintok download``."""

from typing import Annotated

import typer

from spintok.cli.options import Quiet, complete_tokenizer, find_tokenizers
from spintok.cli.output import say

__all__ = ["EPILOG", "download"]

EPILOG = """Examples:

  spintok download NAME                                 to the cache, ~/.cache/spintok

  SPINTOK_CACHE=/shared/spintok spintok download NAME   to a folder that other machines read, with the same variable

  spintok download facebook/hubert-base-ls960           an encoder, to the cache of huggingface_hub

  spintok download spin-hubert-128                      a published tokenizer of `spintok list --all`

  spintok list                                          all names, and which are downloaded"""


def download(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="Names of tokenizers that `spintok list` shows, or ORG/NAME[@REVISION] on the Hugging Face Hub.",
            autocompletion=complete_tokenizer,
        ),
    ],
    quiet: Quiet = False,
) -> None:
    """Download tokenizers ahead of time, for use without a network, and print their folders."""
    from spintok.hub import registry
    from spintok.hub.catalogue import catalogue

    known = registry.known()
    for name in names:
        if name not in known and name not in catalogue() and not registry.is_repository(name):
            raise ValueError(f"unknown tokenizer {name!r}: neither ORG/NAME on the Hub nor one of {', '.join(known)}")
    # This command is a request to use the network: SPINTOK_OFFLINE holds for the others.
    for folder in find_tokenizers(names, False, quiet).values():
        say(str(folder))
