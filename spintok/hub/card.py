"""Model cards: the fields at the head of a tokenizer's README.md."""

from pathlib import Path

__all__ = ["read_card"]


def read_card(folder: Path) -> dict[str, str]:
    """The fields between the card's first two lines of ``---``, as Hugging Face has them: ``license``, ``description``.

    Only fields of one line are read, and no card has none.
    """
    path = folder / "README.md"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if lines[:1] != ["---"] or "---" not in lines[1:]:
        return {}
    head = lines[1 : lines.index("---", 1)]
    pairs = (line.partition(":") for line in head if not line.startswith((" ", "#")))
    return {name.strip(): value.strip().strip("\"'") for name, colon, value in pairs if colon}
