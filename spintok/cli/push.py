"""``spintok push``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from spintok.cli.options import Offline, Quiet, complete_tokenizer, find_model_card, load_tokenizer
from spintok.cli.output import say

__all__ = ["EPILOG", "push"]

EPILOG = """Examples:

  hf auth login                                               once: who you are

  spintok push my-tokenizer/ me/my-tokenizer                  with the model card my-tokenizer/README.md

  spintok push my-tokenizer/ me/my-tokenizer --licence mit --dtype float16

  spintok encode wav/ -t me/my-tokenizer                      wherever the repository may be read"""


def push(
    tokenizer: Annotated[
        str,
        typer.Argument(
            help="Tokenizer to publish: a name (spintok list), a folder, or a released Spin checkpoint.",
            autocompletion=complete_tokenizer,
        ),
    ],
    repository: Annotated[str, typer.Argument(help="ORG/NAME on the Hugging Face Hub; made if there is none.")],
    licence: Annotated[
        str | None,
        typer.Option(help="Licence of the weights for a new model card, as the Hub spells it: cc-by-4.0."),
    ] = None,
    description: Annotated[str | None, typer.Option(help="One line for a new model card.")] = None,
    dtype: Annotated[
        Literal["float32", "float16"],
        typer.Option(help="Type to store the weights in. float16 halves the size and rounds the weights."),
    ] = "float32",
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
    revision: Annotated[str | None, typer.Option(help="An existing branch to commit to (default: main).")] = None,
    offline: Offline = None,
    quiet: Quiet = False,
) -> None:
    """Publish a tokenizer on the Hugging Face Hub: configuration, weights and model card."""
    loaded = load_tokenizer(tokenizer, "cpu", offline, quiet)
    path = find_model_card(tokenizer, offline)
    if path is not None and (licence is not None or description is not None):
        mend = (
            "edit it"
            if path.parent == Path(tokenizer)
            else f"copy it with spintok save {tokenizer} FOLDER, and edit it"
        )
        raise ValueError(f"--licence and --description are for a new model card, but there is {path}: {mend}")
    card = None if path is None else path.read_text(encoding="utf-8")
    if card is None and licence is None:
        raise ValueError(f"{tokenizer} has no model card (README.md): add --licence, for example --licence mit")
    address = loaded.push_to_hub(
        repository,
        licence=licence,
        description=description,
        card=card,
        dtype=dtype,
        private=private,
        revision=revision,
        message=f"Upload tokenizer {loaded.name}",
    )
    if not quiet:
        say(address)
