"""The libraries that some targets need, imported when they are used."""

from importlib import import_module
from typing import Any

from spintok.export.errors import ExportError

__all__ = ["optional"]


def optional(module: str) -> Any:
    """The module of that name; ``ExportError`` says what to install when it cannot be imported."""
    try:
        return import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        package = module.partition(".")[0]
        raise ExportError(f"this target needs {package} ({error}): pip install 'spintok[export]'") from None
