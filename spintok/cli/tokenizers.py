"""``spintok list``."""

from typing import Annotated

import typer

__all__ = ["list_tokenizers"]


def list_tokenizers(
    json: Annotated[bool, typer.Option("--json", help="Print a JSON array with all fields of each tokenizer.")] = False,
) -> None:
    """List the tokenizers that have a name: those that ship with spintok and those in registry files."""
    from dataclasses import asdict
    from json import dumps

    from spintok.hub import registry

    known = registry.known().values()
    if json:
        rows = [{**asdict(one), "folder": str(one.folder), "default": one.name == registry.DEFAULT} for one in known]
        print(dumps(rows, indent=2, ensure_ascii=False))
        return
    for one in known:
        books = ", ".join(f"{book} {size}" for book, size in one.codebooks.items())
        default = " (default)" if one.name == registry.DEFAULT else ""
        print(f"{one.name}{default}: {books} codewords; {one.licence}; {one.size / 1e6:.2f} MB; {one.where}")
        print(f"    {one.description}")
        print(f"    {one.folder}")
