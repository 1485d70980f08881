"""Speech to tokens for language models.

>>> import spintok
>>> tokenizer = spintok.load()
>>> tokens = tokenizer.encode("speech.flac")
>>> assert tokens.durations.sum() == tokens.num_frames
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spintok.loading import load as load
    from spintok.tokenizer import Tokenizer as Tokenizer
    from spintok.tokens import Tokens as Tokens

__all__ = ["Tokenizer", "Tokens", "load"]
__version__ = "0.1.0"

_HOMES = {"Tokenizer": "spintok.tokenizer", "Tokens": "spintok.tokens", "load": "spintok.loading"}


def __getattr__(name: str) -> Any:
    # Imported on first use: torch takes seconds to import, and `spintok --help` should not wait for it.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'spintok' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
