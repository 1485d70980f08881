"""``spintok train``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spintok.cli.options import Device, Offline, Quiet, find_tokenizers
from spintok.cli.output import say
from spintok.cli.progress import progress_display

if TYPE_CHECKING:
    from spintok.train.recipe import Recipe

__all__ = ["EPILOG", "train"]

EPILOG = """Examples:

  spintok train tiny_1_pretrain --data speech/ --output one

  spintok train tiny_3_dc_spin --data speech/ --init one --output my-tokenizer

  torchrun --nproc-per-node 8 -m spintok train spin_hubert_base --data speech/ --output spin

Run the same command again after an interruption: it resumes from the last checkpoint."""


def _complete_recipe(incomplete: str) -> list[str]:
    from spintok.train.recipe_file import shipped_recipes

    return [name for name in shipped_recipes() if name.startswith(incomplete)]


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="The recipe: a .toml file, or the name of one that ships, such as tiny_3_dc_spin.",
            autocompletion=_complete_recipe,
        ),
    ],
    data: Annotated[Path, typer.Option(help="The speech to train on: a folder of audio or a manifest.")],
    output: Annotated[Path, typer.Option(help="The folder to write.")],
    init: Annotated[
        str | None,
        typer.Option(
            help="The encoder to start from: the output folder of an earlier stage, or a checkpoint. For a decoder: "
            "its tokenizer."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Override a field of the recipe, such as optimizer.steps=1000; can be repeated.",
        ),
    ] = None,
    dev: Annotated[
        Path | None, typer.Option(help="Other speech for validation during training: a folder or a manifest.")
    ] = None,
    alignments: Annotated[
        Path | None,
        typer.Option(help="Phone alignments of --dev (TextGrid, .ctm, .jsonl), to report PNMI during training."),
    ] = None,
    checkpoint_minutes: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Minutes between checkpoints (default: two seconds, or more if that costs over 2 % of the time).",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print shapes, parameters, memory and steps, and train nothing.")
    ] = False,
    device: Device = "auto",
    offline: Offline = None,
    quiet: Quiet = False,
) -> None:
    """Train a tokenizer or a decoder on speech, as a recipe describes."""
    from spintok.decoder import Decoder
    from spintok.train.distributed import init_distributed
    from spintok.train.dry_run import dry_run as describe
    from spintok.train.recipe import RecipeError, with_init
    from spintok.train.recipe_file import read_recipe
    from spintok.train.run import TrainingData
    from spintok.train.run import train as run

    if checkpoint_minutes is not None:
        settings = [*(settings or ()), f"loop.checkpoint_minutes={checkpoint_minutes}"]
    plan = read_recipe(recipe, settings or ())
    if init is not None:
        plan = with_init(plan, init)
    _find(_names(plan), offline, quiet)
    speech = TrainingData(data, dev, alignments)
    with init_distributed(device) as distributed:
        quiet = quiet or distributed.rank > 0
        try:
            if dry_run:
                result = describe(plan, speech, distributed)
            else:
                with progress_display(quiet=quiet) as display:
                    made = run(plan, speech, output, distributed, display, display.message)
                if isinstance(made, Decoder):
                    result = f"{output}: {made.describe()}"
                else:
                    fingerprint = made.fingerprint[:12]
                    result = f"{output}: tokenizer {made.name}, {made.codebook_size} codewords, {fingerprint}"
        except RecipeError as error:
            raise RecipeError(f"{recipe}: {error}") from None
        if not quiet:
            say(result)


def _find(names: list[str], offline: bool | None, quiet: bool) -> None:
    """Download the named tokenizers that a registry has, so that training finds them on this machine."""
    for name in names:
        origin = name.partition(":")[0]
        if offline and origin in ("torchaudio", "s3prl") and not Path(name).exists():
            raise ValueError(f"{name} is downloaded by {origin}, which --offline cannot prevent: give a file instead")
    find_tokenizers(names, offline, quiet)


def _names(recipe: "Recipe") -> list[str]:
    """Return the names in the recipe of encoders to start from and tokenizers that compute labels."""
    labels = getattr(recipe, "labels", None)
    fields = [getattr(recipe, name, None) for name in ("start", "encoder", "tokenizer")]
    named = [*fields, getattr(labels, "tokenizer", labels)]
    return [name for name in named if isinstance(name, str)]
