"""``spintok list``."""

from typing import Annotated

import typer

from spintok.cli.output import say

__all__ = ["EPILOG", "list_tokenizers"]

EPILOG = """Examples:

  spintok list                                         names, codebooks, licences, folders

  spintok list --json                                  the same for programs

  SPINTOK_REGISTRY=team.toml spintok list              with the tokenizers of a registry file"""


def list_tokenizers(
    json: Annotated[bool, typer.Option("--json", help="Print all fields as JSON.")] = False,
) -> None:
    """List the tokenizers that ship with spintok and those in registry files (SPINTOK_REGISTRY)."""
    from dataclasses import asdict
    from json import dumps

    from spintok.hub import registry

    known = registry.known().values()
    if json:
        rows = [{**asdict(one), "folder": str(one.folder), "default": one.name == registry.DEFAULT} for one in known]
        print(dumps(rows, indent=2))
        return
    for one in known:
        codebooks = ", ".join(f"{name} {size}" for name, size in one.codebooks.items())
        default = " (default)" if one.name == registry.DEFAULT else ""
        say(f"{one.name}{default}: {codebooks} codewords; {one.licence}; {one.size / 1e6:.2f} MB; {one.where}")
        say(f"    {' '.join(one.description.split())}")
        say(f"    {one.folder}")
