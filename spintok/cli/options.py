"""Options that several commands share, and finding and loading the tokenizers that they name."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spintok.cli.progress import progress_display

if TYPE_CHECKING:
    from spintok.decoder import Decoder
    from spintok.featurizer import Featurizer
    from spintok.tokenizer import Tokenizer

__all__ = [
    "DecoderNames",
    "Device",
    "Offline",
    "Quiet",
    "TokenizerName",
    "complete_tokenizer",
    "distinct_names",
    "find_tokenizers",
    "given",
    "load_decoders",
    "load_featurizer",
    "load_tokenizer",
]


def complete_tokenizer(incomplete: str) -> list[str]:
    """Complete the name of a tokenizer in the shell."""
    from spintok.hub import registry
    from spintok.hub.catalogue import catalogue

    return [name for name in (*registry.known(), *catalogue()) if name.startswith(incomplete)]


Device = Annotated[
    str,
    typer.Option(
        envvar="SPINTOK_DEVICE", help="The device to run on: cpu, cuda or cuda:1; auto takes a GPU if there is one."
    ),
]
Offline = Annotated[
    bool | None,
    # None lets the library read SPINTOK_OFFLINE, which holds for downloads of the registry only.
    typer.Option(
        "--offline", help="Download nothing; fail if a file is missing. SPINTOK_OFFLINE=1 does the same.",
        show_default=False,
    ),
]  # fmt: skip
DecoderNames = Annotated[
    list[str] | None,
    typer.Option(
        "--decoder",
        help="A decoder of the tokens, to hear what they say: a folder, or the name of one that comes with spintok; "
        "repeatable (default: what comes with spintok for the codebook).",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
TokenizerName = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        "-t",
        envvar="SPINTOK_TOKENIZER",
        help="The tokenizer: a name that `spintok list` shows, a folder, or ORG/NAME[@REVISION] on the Hub.",
        autocompletion=complete_tokenizer,
    ),
]


def given(context: typer.Context, option: str) -> bool:
    """Return whether the option is on the command line, rather than a default or an environment variable."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def load_tokenizer(name: str | None, device: str, offline: bool | None, quiet: bool) -> "Tokenizer":
    """Load the tokenizer of that name or folder, or the default tokenizer, onto the device."""
    from spintok.loading import load

    with progress_display(quiet=quiet, unit="bytes") as progress:
        return load(name, device=device, offline=offline, progress=progress)


def find_model_card(name: str, offline: bool | None) -> Path | None:
    """The model card (README.md) beside the weights of the tokenizer of that name or folder, if it has one."""
    from spintok.hub import registry
    from spintok.loading import find_source

    source = Path(find_source(name, offline=offline))
    if not source.exists():
        source = registry.find(name, offline=offline)
    card = source / "README.md"
    return card if card.is_file() else None


def load_decoders(
    names: list[str] | None, tokenizers: Sequence["Tokenizer"], codebook: str | None = None
) -> "list[Decoder]":
    """The named decoders, or those that come with spintok for a codebook, the primary by default, of the tokenizers.

    Raises ``ValueError`` if a named one belongs to no codebook of the tokenizers.
    """
    from spintok.decoder import load_decoder, shipped_decoders

    if names is None:
        wanted = {(one.fingerprint, codebook or one.codebook_names[0]) for one in tokenizers}
        found = [load_decoder(folder) for folder in shipped_decoders().values()]
        return [decoder for decoder in found if (decoder.source.fingerprint, decoder.source.codebook) in wanted]
    decoders = [load_decoder(name) for name in names]
    for decoder in decoders:
        source = decoder.source
        if all(one.fingerprint != source.fingerprint for one in tokenizers):
            raise ValueError(
                f"decoder {decoder.name!r} speaks tokens of {source.tokenizer} ({source.fingerprint[:12]}), which is "
                "none of the tokenizers here"
            )
    return decoders


def load_featurizer(name: str | None, device: str, offline: bool | None, quiet: bool) -> "Featurizer":
    """Load the tokenizer or the encoder without a codebook of that name, folder or checkpoint, onto the device."""
    from spintok.loading import load_featurizer

    with progress_display(quiet=quiet, unit="bytes") as progress:
        return load_featurizer(name, device=device, offline=offline, progress=progress)


def distinct_names(loaded: "list[tuple[str, Tokenizer]]") -> "list[Tokenizer]":
    """Rename tokenizers that share a name to the name or folder that was given for them."""
    names = [one.name for _, one in loaded]
    for source, one in loaded:
        if names.count(one.name) > 1:
            one.name = source
    return [one for _, one in loaded]


def find_tokenizers(names: Sequence[str], offline: bool | None, quiet: bool) -> dict[str, Path]:
    """Return the folders of the named tokenizers, downloading those that are missing; skip other text."""
    from spintok.hub import registry
    from spintok.loading import find_source

    known = registry.known() if names else {}
    found: dict[str, Path] = {}
    with progress_display(quiet=quiet, unit="bytes") as progress:
        for name in names:
            if name in known:
                found[name] = registry.find(name, offline=offline, progress=progress)
            elif (folder := find_source(name, offline=offline, progress=progress)) != name:
                found[name] = Path(folder)
    return found
