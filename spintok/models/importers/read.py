"""Read checkpoint files without running anything that they contain.

safetensors files hold no code. Files of ``torch.save`` are pickles: they are read with torch's weights-only loader,
which builds tensors and plain containers only. Training checkpoints also hold settings in classes of other packages
(argparse, omegaconf, fairseq, Lightning, ...). These classes are never imported. Each is replaced by ``Inert``, which
only stores its arguments and its state, so tensors and settings can be read.

A small file cannot take much memory or time either: compressed archives, tensors that are larger than their data, and
settings that nest too deeply or repeat themselves too often are refused.
"""

import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from spintok.models.importers.weights import CheckpointError

__all__ = ["one_line", "plain", "read_checkpoint", "read_tensors"]

# Of the settings of a checkpoint, written out as a tree.
_MOST_VALUES = 200_000
_DEEPEST = 100


class Inert:
    """In place of an object whose class is not imported: stores its arguments and its state."""

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
    """The tensors of a safetensors file, or of a torch.save file that holds nothing else, by name.

    Raises:
        CheckpointError: the file is damaged, is of another kind, or holds something else.
    """
    values = read_checkpoint(path)
    if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
        raise CheckpointError(f"{path.name} does not hold tensors by name")
    return values


def read_checkpoint(path: Path) -> Any:
    """The contents of a safetensors or torch.save file, with ``Inert`` in place of objects of other packages.

    Raises:
        CheckpointError: the file is damaged, is of another kind, or cannot be read safely.
    """
    try:
        with path.open("rb") as file:
            head = file.read(10)
            size = file.seek(0, 2)
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror or error}") from error
    # A safetensors file starts with the length of a JSON object, 8 bytes, and that object.
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        try:
            return load_file(path)
        except Exception as error:
            raise CheckpointError(f"{path.name} is not a complete safetensors file: {one_line(error)}") from error
    try:
        if zipfile.is_zipfile(path):
            _refuse_compressed(path)
        names = _other_classes(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(_stand_ins(names)):
            # torch warns about storages and pickle protocols, which only its maintainers can change.
            warnings.simplefilter("ignore")
            values = torch.load(path, map_location="cpu", weights_only=True)
        _check_tensors(values, 4 * size + (1 << 20))
        return values
    except CheckpointError as error:
        raise CheckpointError(f"{path.name} {error}") from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} is not a checkpoint that can be read without running its code; where it was made, "
            'save its tensors alone: torch.save(model.state_dict(), "weights.pt")'
        ) from error
    except Exception as error:
        # A damaged file can fail in any way.
        raise CheckpointError(f"{path.name} is damaged or not a checkpoint: {one_line(error)}") from error


def plain(value: Any) -> Any:
    """Settings as dicts, lists and scalars: argparse namespaces, omegaconf containers and enums are resolved.

    Keys of dicts that are not text are left out, and so are tensors.

    Raises:
        CheckpointError: the settings contain themselves, nest too deeply, or are too many when written out.
    """
    return _Plain().convert(value, 0)[0]


class _Plain:
    """Converts every object once, however often it occurs: shared lists could otherwise take forever."""

    def __init__(self) -> None:
        # The object, so that its id stays taken; its conversion; and how many values that is, written out.
        self.done: dict[int, tuple[Any, Any, int]] = {}

    def convert(self, value: Any, depth: int) -> tuple[Any, int]:
        if isinstance(value, Tensor):
            return None, 1
        if not isinstance(value, Inert | Mapping | list | tuple):
            return value, 1
        if depth > _DEEPEST:
            raise CheckpointError("its settings nest too deeply")
        if id(value) not in self.done:
            found, count = self._container(value, depth + 1)
            if count > _MOST_VALUES:
                raise CheckpointError("its settings hold too many values")
            self.done[id(value)] = (value, found, count)
        return self.done[id(value)][1:]

    def _container(self, value: Any, depth: int) -> tuple[Any, int]:
        if isinstance(value, Inert):
            state = value.state
            if isinstance(state, tuple) and state and isinstance(state[0], dict):
                state = state[0]
            if isinstance(state, dict):
                holder = next((holder for holder in ("_content", "_val") if holder in state), None)
                return self.convert(state if holder is None else state[holder], depth)
            return self.convert(value.args[0], depth) if len(value.args) == 1 else (None, 1)
        if isinstance(value, Mapping):
            items = {key: self.convert(item, depth) for key, item in value.items() if isinstance(key, str)}
            return {key: item for key, (item, _) in items.items()}, 1 + sum(count for _, count in items.values())
        parts = [self.convert(item, depth) for item in value]
        return [part for part, _ in parts], 1 + sum(count for _, count in parts)


def one_line(error: Exception) -> str:
    """The first line of an error's message, or its type if it has none."""
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


def _refuse_compressed(path: Path) -> None:
    """torch.save never compresses; a compressed archive could unpack to a thousand times its size."""
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise CheckpointError("is compressed, which torch.save never does")


def _check_tensors(values: Any, limit: int) -> None:
    """Refuse tensors that are larger than their data, such as one number that is repeated a billion times."""
    seen: set[int] = set()
    waiting, total = [values], 0
    while waiting:
        value = waiting.pop()
        # Tensors count as often as they occur, since each occurrence may be copied.
        if id(value) in seen and not isinstance(value, Tensor):
            continue
        seen.add(id(value))
        match value:
            case Tensor():
                if value.layout is not torch.strided or value.is_quantized:
                    raise CheckpointError("holds sparse or quantized tensors")
                total += value.nbytes
                if value.nbytes > value.untyped_storage().nbytes() or total > limit:
                    raise CheckpointError("holds tensors that are larger than the file")
            case Mapping():
                waiting += value.values()
            case list() | tuple() | set() | frozenset():
                waiting += value
            case Inert():
                waiting += (value.args, value.state)


def _stand_ins(names: set[str]) -> list[Any]:
    # torch accepts pairs (object, name): it uses the object wherever the file refers to the name.
    return [(type("Inert", (Inert,), {}), name) for name in sorted(names)]


def _other_classes(path: Path) -> set[str]:
    """Full names of the classes and functions that a file refers to, except those that torch's loader knows."""
    if zipfile.is_zipfile(path):
        return set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    with path.open("rb") as file:
        return _legacy_classes(file)


def _legacy_classes(file: IO[bytes]) -> set[str]:
    """All names in a file of torch < 1.6: pickles of a magic number, a version, the system and the object.

    They include those that torch's loader knows, for which it uses its own objects.
    """
    names: set[str] = set()
    for _ in range(4):
        for operation, argument, _ in pickletools.genops(file):
            if operation.name == "GLOBAL":
                names.add(str(argument).replace(" ", "."))
    return names
