"""What a recipe names: an encoder to start from, and a tokenizer or alignments for labels."""

import json
from pathlib import Path

from spintok.hub import registry
from spintok.loading import load
from spintok.models.base import FeatureExtractor
from spintok.models.importers import load_encoder
from spintok.models.mfcc import Mfcc

__all__ = ["is_alignments", "open_encoder"]

_ALIGNMENTS = {".textgrid", ".ctm", ".tsv", ".jsonl", ".json"}


def open_encoder(source: str) -> FeatureExtractor:
    """The encoder of a tokenizer (a folder, or a name that ships), of another library's checkpoint, or "mfcc".

    Raises:
        ValueError: it is none of these, or damaged.
    """
    if source == "mfcc":
        return Mfcc()
    if source in registry.known() or _is_tokenizer(Path(source)):
        return load(source).encoder
    if Path(source).exists() or ":" in source:
        return load_encoder(source)
    raise ValueError(
        f"{source}: no such tokenizer or checkpoint: give a folder that training left, a checkpoint of another "
        "library, or a name such as torchaudio:HUBERT_BASE"
    )


def is_alignments(source: str) -> bool:
    """Whether ``source`` is a file of alignments by its name, or a folder that is no tokenizer."""
    path = Path(source)
    if path.is_dir():
        return not (path / "config.json").exists()
    return path.suffix.lower() in _ALIGNMENTS


def _is_tokenizer(folder: Path) -> bool:
    """Whether this is a tokenizer's folder: a Hugging Face model has a config.json too."""
    try:
        return "spintok_format" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
