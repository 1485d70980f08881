"""``spintok train``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from spintok.cli.options import Quiet

__all__ = ["EPILOG", "train"]

EPILOG = """Example:

  spintok train recipes/mfcc_kmeans_100.toml --data speech/ --output my-tokenizer"""


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as those in recipes/.")],
    data: Annotated[Path, typer.Option(help="Speech: a folder or a manifest.")],
    output: Annotated[Path, typer.Option(help="The tokenizer folder to write.")],
    quiet: Quiet = False,
) -> None:
    """Make a tokenizer from speech, as a recipe says."""
    from spintok.manifest import scan
    from spintok.train.recipe import read_recipe
    from spintok.train.stage_kmeans import run

    plan = read_recipe(recipe)
    result = run(plan, scan(data), Console(stderr=True, quiet=quiet))
    result.save(output)
    if not quiet:
        print(f"{output}: tokenizer {result.name}, {result.codebook_size} codewords, {result.fingerprint[:12]}")
