"""Checkpoint files, read without running anything they contain.

safetensors files hold no code. Files of ``torch.save`` are pickles: they are read with torch's weights-only
loader, which builds tensors and plain containers. Training checkpoints also hold settings in classes of other
packages (argparse, omegaconf, fairseq, Lightning, ...). Those classes are never imported: each is replaced by
``Inert``, which only keeps what it is given, so the tensors and the settings can be read and nothing else
happens.
"""

import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from spintok.models.importers.weights import CheckpointError

__all__ = ["plain", "read_checkpoint", "read_tensors"]


class Inert:
    """Stands for an object of a class that is not imported: keeps what it is given, does nothing."""

    def __new__(cls, *args: Any) -> "Inert":
        self = super().__new__(cls)
        self.args = args
        self.state = None
        return self

    args: tuple[Any, ...]
    state: Any

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors by name of a safetensors file, or of a torch.save file that holds just them.

    Raises:
        CheckpointError: the file is damaged, is neither, or holds something else.
    """
    values = read_checkpoint(path)
    if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
        raise CheckpointError(f"{path.name} does not hold tensors by name")
    return values


def read_checkpoint(path: Path) -> Any:
    """What a safetensors or torch.save file holds, objects of other packages as ``Inert``.

    Raises:
        CheckpointError: the file is damaged, is neither, or cannot be read safely.
    """
    try:
        with path.open("rb") as file:
            head = file.read(10)
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror or error}") from error
    # A safetensors file starts with the length of a JSON object, 8 bytes, and that object.
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{path.name} is not a whole safetensors file: {error}") from error
    try:
        names = _other_classes(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(_stand_ins(names)):
            # torch tells of storages and pickle protocols that only its own maintainers can act on.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} is not a checkpoint that can be read without running its code; where it was made, "
            'save its tensors alone: torch.save(model.state_dict(), "weights.pt")'
        ) from error
    except Exception as error:
        # A damaged file fails in as many ways as it has bytes.
        raise CheckpointError(f"{path.name} is damaged or not a checkpoint: {_one_line(error)}") from error


def plain(value: Any) -> Any:
    """Settings as dicts, lists and scalars: argparse namespaces, omegaconf containers and enums resolved."""
    if isinstance(value, Inert):
        state = value.state
        if isinstance(state, tuple) and state and isinstance(state[0], dict):
            state = state[0]
        if isinstance(state, dict):
            for holder in ("_content", "_val"):
                if holder in state:
                    return plain(state[holder])
            return plain(state)
        return plain(value.args[0]) if len(value.args) == 1 else None
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _stand_ins(names: set[str]) -> list[Any]:
    # torch allows an (object, name) pair: the object is used wherever the file says the name.
    return [(type("Inert", (Inert,), {}), name) for name in sorted(names)]


def _other_classes(path: Path) -> set[str]:
    """Full names of the classes and functions that a file refers to, but for those that torch's loader knows."""
    if zipfile.is_zipfile(path):
        return set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    with path.open("rb") as file:
        return _legacy_classes(file)


def _legacy_classes(file: IO[bytes]) -> set[str]:
    """All names in a file of torch < 1.6: pickles of a magic number, a version, the system and the object.

    Among them are those that torch's loader knows; it takes its own meaning of these.
    """
    names: set[str] = set()
    for _ in range(4):
        for operation, argument, _ in pickletools.genops(file):
            if operation.name == "GLOBAL":
                names.add(str(argument).replace(" ", "."))
    return names


def _one_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
