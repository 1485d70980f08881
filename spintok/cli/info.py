"""``spintok info``."""

from typing import TYPE_CHECKING, Annotated

import typer

from spintok.cli.options import Offline, Quiet, complete_tokenizer, load_tokenizer
from spintok.cli.output import say

if TYPE_CHECKING:
    from spintok.hub.catalogue import Part

__all__ = ["EPILOG", "info"]

EPILOG = """Examples:

  spintok info hubert-base-gslm-100      which encoder, layer and K-means, before anything is downloaded

  spintok info my-tokenizer/

  spintok info                           the default tokenizer"""


def info(
    name: Annotated[
        str | None,
        typer.Argument(
            envvar="SPINTOK_TOKENIZER",
            help="Tokenizer: a name (spintok list --all), a folder, or ORG/NAME on the Hugging Face Hub "
            "(default: the one that commands take).",
            autocompletion=complete_tokenizer,
        ),
    ] = None,
    offline: Offline = None,
    quiet: Quiet = False,
) -> None:
    """Show what a tokenizer is made of: encoder, layer, codebooks, frames, normalisation, source."""
    from pathlib import Path

    from spintok.hub.catalogue import catalogue, encoders
    from spintok.serialization import is_tokenizer

    elsewhere = name is not None and not Path(name).exists()
    published = catalogue().get(name) if name is not None and elsewhere else None
    alone = encoders().get(name) if name is not None and elsewhere else None
    if alone is not None:
        rows = [
            ("name", alone.name),
            ("what", alone.description),
            ("encoder", f"{alone.name} (Hub), {alone.layers} layers"),
            ("layer", f"{alone.layer} in published work, counted from 1"),
            (
                "codebook",
                f"none: bring a K-means (spintok import {alone.name} FOLDER --centroids FILE --layer N) or train one "
                f"(spintok train kmeans_hubert_base --init {alone.name} --set layer=N)",
            ),
            ("audio", f"16,000 Hz, {alone.input}"),
            ("frames", f"{alone.frame_rate} a second"),
            ("licence", alone.licence),
            ("source", alone.source),
            ("verified", "no: its features were compared with those of the publisher's code, on other weights"),
        ]
    elif published is not None:
        rows = [
            ("name", published.name),
            ("what", published.description),
            *(("file", f"{part.url}, {_checksum(part)}") for part in published.parts),
            *([("encoder", f"{published.encoder} (Hub)")] if isinstance(published.encoder, str) else []),
            ("layer", f"{published.layer}, counted from 1"),
            ("codebook", f"{published.size} codewords, {published.codes}"),
            ("audio", _audio(published.normalised)),
            ("frames", f"{published.frame_rate} a second"),
            ("licence", published.licence),
            ("source", published.source),
            ("verified", "no: its tokens were not compared with the publisher's"),
            ("folder", f"{published.folder}{'' if is_tokenizer(published.folder) else ' (after the download)'}"),
        ]
    else:
        loaded = load_tokenizer(name, "cpu", offline, quiet)
        config = getattr(loaded.encoder, "config", None)
        books = (f"{key} {book.config.size} ({book.config.metric})" for key, book in loaded.codebooks.items())
        millions = sum(parameter.numel() for parameter in loaded.parameters()) / 1e6
        rows = [
            ("name", loaded.name),
            ("encoder", f"{loaded.encoder.type_name}, {millions:.1f} million weights with the codebooks"),
            ("layer", f"{loaded.layer} of {loaded.encoder.num_layers}" if loaded.encoder.has_layers else "none"),
            ("codebook", ", ".join(books)),
            ("audio", _audio(getattr(config, "normalize_waveform", False))),
            ("frames", f"{loaded.frame_rate} a second, each of {loaded.grid.reach} samples"),
            ("fingerprint", loaded.fingerprint),
        ]
    for key, value in rows:
        say(f"{key:12}{value}")


def _checksum(part: "Part") -> str:
    return "no published checksum" if part.sha256 is None else f"sha256 {part.sha256}"


def _audio(normalised: bool) -> str:
    return f"16,000 Hz, {'zero mean and unit variance' if normalised else 'not normalised'}"
