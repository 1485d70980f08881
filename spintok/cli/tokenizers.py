"""``spintok list``."""

__all__ = ["list_tokenizers"]


def list_tokenizers() -> None:
    """The tokenizers that ship with spintok."""
    from spintok import registry
    from spintok.tokenizer import load

    for name, folder in registry.known().items():
        tokenizer = load(name)
        books = ", ".join(f"{book} {tokenizer.size_of(book)}" for book in tokenizer.codebook_names)
        print(f"{name}{' (default)' if name == registry.DEFAULT else ''}: {books} codewords; {folder}")
