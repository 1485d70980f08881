"""The optional packages of the judges: what is missing, and importing them without their warnings."""

import importlib.util
import warnings
from collections.abc import Mapping
from typing import Any

from spintok._files import require

__all__ = ["EXTRA", "PACKAGES", "load", "missing_packages"]

EXTRA = "resynthesis"

PACKAGES: Mapping[str, str] = {
    "rapidfuzz": "rapidfuzz",
    "pocketsphinx": "pocketsphinx",
    "speechmos": "speechmos",
    # speechmos imports these and does not ask for them.
    "librosa": "librosa",
    "onnxruntime": "onnxruntime",
    "requests": "requests",
    "pyworld": "pyworld",
    "resemblyzer": "Resemblyzer",
}
"""Name in the package index by name of the module."""


def missing_packages() -> str | None:
    """Which packages are not installed, and the command that installs them; None if all are there."""
    missing = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if not missing:
        return None
    verb = "is" if len(missing) == 1 else "are"
    return f"{', '.join(missing)} {verb} not installed: pip install 'spintok[{EXTRA}]'"


def load(module: str, purpose: str) -> Any:
    """Import a module of one of the packages.

    pyworld and webrtcvad read their version with pkg_resources, and Resemblyzer imports an old name of scipy; both only
    warn, of what the user cannot change.

    Raises:
        MissingPackageError: it cannot be imported.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        return require(module, extra=EXTRA, purpose=purpose)
