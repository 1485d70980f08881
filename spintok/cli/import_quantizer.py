"""``spintok import``."""

from pathlib import Path
from typing import Annotated

import typer

from spintok.cli.options import Offline, Quiet
from spintok.cli.output import say
from spintok.cli.progress import progress_display

__all__ = ["EPILOG", "import_quantizer"]

EPILOG = """Examples:

  spintok import facebook/hubert-base-ls960 hubert-100/ --centroids km.bin --layer 6

  spintok import slprl/mhubert-base-25hz twist/ --centroids km500.bin --layer 11

  spintok import hubert_base_ls960.pt mine/ --centroids centers.npy --layer 9 --name mine

  spintok import spidr_base.pt spidr-256/ --centroids spidr_base.pt --layer 6      the codes of SpidR itself

K-means of scikit-learn (joblib, pickle) is read without running what is in the file. `spintok list --all` shows which
encoder, layer and K-means are used together in published work."""


def import_quantizer(
    encoder: Annotated[
        str,
        typer.Argument(
            help="Encoder: ORG/NAME on the Hugging Face Hub, a folder or checkpoint, torchaudio:NAME, or s3prl:NAME."
        ),
    ],
    folder: Annotated[Path, typer.Argument(help="Folder to create. It must not exist, or be empty.")],
    centroids: Annotated[
        Path,
        typer.Option(help="K-means: .npy, .pt, .safetensors, scikit-learn's .bin, .pkl or .joblib, an index of faiss."),
    ],
    layer: Annotated[
        int, typer.Option(help="Layer whose features were clustered, from 1; 0 is the first layer's input.")
    ],
    name: Annotated[str | None, typer.Option(help="Name of the tokenizer (default: ENCODER-LLAYER-kmSIZE).")] = None,
    final_norm: Annotated[
        bool, typer.Option("--final-norm", help="The last layer of a Large model includes its final layer norm.")
    ] = False,
    offline: Offline = None,
    quiet: Quiet = False,
) -> None:
    """Make a tokenizer from an encoder and an existing K-means."""
    from spintok.loading import import_quantizer

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: is not an empty folder; choose another one")
    with progress_display(quiet=quiet, unit="bytes") as progress:
        tokenizer = import_quantizer(
            encoder, centroids, layer=layer, name=name, final_norm=final_norm, offline=offline, progress=progress
        )
    tokenizer.save(folder)
    if not quiet:
        what = f"{tokenizer.codebook_size} codewords over layer {layer}, {tokenizer.frame_rate} frames a second"
        say(f"{folder}: tokenizer {tokenizer.name}, {what}, {tokenizer.fingerprint[:12]}")
