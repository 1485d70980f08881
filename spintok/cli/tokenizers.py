"""``spintok list``."""

from rich.console import Console
from rich.table import Table

__all__ = ["list_tokenizers"]


def list_tokenizers() -> None:
    """The tokenizers that ship with spintok."""
    from spintok import registry
    from spintok.tokenizer import load

    table = Table("name", "codebooks", "frames a second", "folder", box=None, pad_edge=False)
    for name, folder in registry.known().items():
        tokenizer = load(name)
        books = ", ".join(f"{book} {tokenizer.size_of(book)}" for book in tokenizer.codebook_names)
        shown = f"{name} (default)" if name == registry.DEFAULT else name
        table.add_row(shown, books, str(tokenizer.frame_rate), str(folder))
    Console(soft_wrap=True).print(table)
