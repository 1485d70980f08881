"""``spintok list``."""

from typing import Annotated

import typer

from spintok.cli.output import say

__all__ = ["EPILOG", "list_tokenizers"]

EPILOG = """Examples:

  spintok list                                         names, codebooks, licences, folders

  spintok list --all                                   also published tokenizers and encoders

  spintok list --json                                  the same for programs

  SPINTOK_REGISTRY=team.toml spintok list              with the tokenizers of a registry file"""


def list_tokenizers(
    everything: Annotated[
        bool, typer.Option("--all", help="Also those that others have published: HuBERT with GSLM's K-means, Spin, ...")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print all fields as JSON.")] = False,
) -> None:
    """List the tokenizers that ship with spintok and those in registry files (SPINTOK_REGISTRY)."""
    from dataclasses import asdict
    from json import dumps

    from spintok.hub import registry
    from spintok.hub.catalogue import catalogue, encoders
    from spintok.serialization import is_tokenizer

    known = registry.known().values()
    published = catalogue().values() if everything else ()
    alone = encoders().values() if everything else ()
    if json:
        rows: list[dict[str, object]] = [
            {**asdict(one), "folder": str(one.folder), "default": one.name == registry.DEFAULT} for one in known
        ]
        rows += [{**asdict(one), "parts": [part.url for part in one.parts]} for one in published]
        rows += [asdict(one) for one in alone]
        print(dumps(rows, indent=2))
        return
    for one in known:
        codebooks = ", ".join(f"{name} {size}" for name, size in one.codebooks.items())
        default = " (default)" if one.name == registry.DEFAULT else ""
        say(f"{one.name}{default}: {codebooks} codewords; {one.licence}; {one.size / 1e6:.2f} MB; {one.where}")
        say(f"    {' '.join(one.description.split())}")
        say(f"    {one.folder}")
    for other in published:
        where = "cached" if is_tokenizer(other.folder) else "to download"
        say(f"{other.name}: {other.size} codewords, {other.frame_rate} Hz; {other.licence}; unverified here; {where}")
        say(f"    {other.description}")
    for encoder in alone:
        say(f"{encoder.name}: no codebook, {encoder.frame_rate} Hz; {encoder.licence}; unverified here; an encoder")
        say(f"    {encoder.description}")
