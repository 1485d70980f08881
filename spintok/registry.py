"""The tokenizers that ship with spintok, by name."""

from importlib.resources import as_file, files
from pathlib import Path

__all__ = ["DEFAULT", "find", "known"]

DEFAULT = "mfcc-kmeans-100"
"""The tokenizer of ``spintok.load()``."""


def known() -> dict[str, Path]:
    """Every shipped tokenizer's name and folder."""
    try:
        shipped = files("spintok.pretrained")
    except ModuleNotFoundError:
        # Python was started in a checkout, so this file is the checkout's and not the installed one.
        shipped = Path(__file__).parents[1] / "pretrained"
    with as_file(shipped) as root:
        return {folder.name: folder for folder in sorted(root.iterdir()) if (folder / "config.json").is_file()}


def find(name: str) -> Path:
    """The folder of the tokenizer ``name``. Raises ``ValueError`` that lists the known ones."""
    folders = known()
    if name not in folders:
        raise ValueError(
            f"unknown tokenizer {name!r}: not a folder with a config.json, and not one of those that ship: "
            f"{', '.join(folders) or '(none)'}"
        )
    return folders[name]
