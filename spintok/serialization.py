"""Folders of tokenizers and decoders: config.json, model.safetensors, and the fingerprint of both."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from spintok._files import atomic

__all__ = [
    "DECODER",
    "FORMAT",
    "TOKENIZER",
    "FolderError",
    "Kind",
    "StoredDtype",
    "TokenizerError",
    "fingerprint",
    "is_finite",
    "is_tokenizer",
    "load_weights",
    "read_folder",
    "write_folder",
]

FORMAT = 1
"""The version of the layout of tokenizer folders that this release reads and writes."""

StoredDtype = Literal["float32", "float16"]
"""The dtype of weights in the file; in memory they are always float32."""


class FolderError(ValueError):
    """A folder cannot be used; the message names the folder and the cause."""


class TokenizerError(FolderError):
    """A tokenizer folder cannot be used."""


@dataclass(frozen=True)
class Kind:
    """What a folder holds.

    Attributes:
        name: the name in messages.
        marker: the field of config.json with the version of the layout.
        version: the one that this release reads.
        error: what reading raises.
        instead: says what another config.json describes, and what to do.
    """

    name: str
    marker: str
    version: int
    error: type[FolderError]
    instead: str


TOKENIZER = Kind(
    "tokenizer",
    "spintok_format",
    FORMAT,
    TokenizerError,
    "contains an encoder, not a tokenizer: train a codebook on it (spintok train recipes/...)",
)
DECODER = Kind("decoder", "spintok_decoder", 1, FolderError, "contains no decoder: train one (spintok train voice ...)")


def fingerprint(config: Mapping[str, Any], module: nn.Module) -> str:
    """SHA-256 of a configuration and of all weights of a module."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name}:{array.dtype}:{tuple(array.shape)}".encode())
        digest.update(array.numpy().tobytes())
    return digest.hexdigest()


def write_folder(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor], dtype: StoredDtype) -> None:
    """Write ``config.json`` and ``model.safetensors``, each atomically.

    Raises:
        ValueError: a weight is too large for float16, or ``dtype`` is unknown; nothing is written.
    """
    tensors = {name: _stored(name, tensor, dtype) for name, tensor in weights.items()}
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save(tensors))
    with atomic(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def read_folder(folder: Path, kind: Kind = TOKENIZER) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the weights of a folder.

    Raises:
        FolderError: a file is missing or damaged, or the folder holds something else; ``kind.error``.
    """
    config = _read_config(folder, kind)
    path = folder / "model.safetensors"
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise kind.error(f"{path}: missing, so this {kind.name} is incomplete") from None
    except Exception as error:
        # A damaged header fails in any way, inside safetensors or torch.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise kind.error(f"{folder}: model.safetensors is damaged ({reason[:200]})") from None
    for name, tensor in weights.items():
        if tensor.dtype not in (torch.float32, torch.float16) and tensor.is_floating_point():
            raise kind.error(f"{folder}: {name} is stored as {tensor.dtype}; float32 and float16 are read")
    return config, weights


def is_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer; models of Hugging Face have a config.json too."""
    try:
        return "spintok_format" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], folder: Path, error: type[FolderError]) -> None:
    """Put the weights of a folder into a module made on any device, "meta" included; they become float32.

    Raises:
        FolderError: a weight is missing, unknown, of another shape, NaN or infinite; ``error``.
    """
    needed = {name: _form(tensor) for name, tensor in module.state_dict().items()}
    given = {name: _form(tensor) for name, tensor in weights.items()}
    for name in sorted(needed.keys() | given.keys()):
        if needed.get(name) != given.get(name):
            raise error(
                f"{folder}: model.safetensors does not fit config.json: {name} should be "
                f"{needed.get(name, 'absent')} and is {given.get(name, 'absent')}"
            )
    for name, tensor in weights.items():
        if not is_finite(tensor):
            raise error(f"{folder}: {name} has weights that are NaN or infinite")
    # Copies: the tensors of a safetensors file may be its mapped pages.
    copies = {
        name: tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in weights.items()
    }
    module.load_state_dict(copies, assign=True)


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    # The sum is NaN or infinite if a value is, and quick to compute. A sum of float64 may also overflow.
    return bool(torch.isfinite(tensor.sum(dtype=torch.float64))) or bool(torch.isfinite(tensor).all())


def _form(tensor: Tensor) -> str:
    return f"{'' if tensor.is_floating_point() else 'integer '}{tuple(tensor.shape)}"


def _read_config(folder: Path, kind: Kind) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise kind.error(f"{path}: missing, so this {kind.name} is incomplete") from None
    except OSError as error:
        raise kind.error(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise kind.error(f"{folder}: config.json does not describe a {kind.name}: {error!r}"[:300]) from None
    if not isinstance(config, dict):
        raise kind.error(f"{folder}: config.json does not describe a {kind.name}: it is not a JSON object")
    if kind.marker not in config:
        raise kind.error(f"{folder}: {kind.instead}")
    if config[kind.marker] != kind.version:
        found = str(config[kind.marker])[:80]
        raise kind.error(f"{folder}: config.json has the format {found}; this release reads {kind.version}")
    return config


def _stored(name: str, tensor: Tensor, dtype: StoredDtype) -> Tensor:
    """A weight in the dtype of the file."""
    tensor = tensor.detach().cpu().contiguous()
    match dtype:
        case "float32":
            return tensor
        case "float16" if tensor.is_floating_point():
            half = tensor.half()
            if not torch.equal(half.isfinite(), tensor.isfinite()):
                raise ValueError(f"{name} has weights beyond 65,504, the largest float16: save it in float32")
            return half
        case "float16":
            return tensor
        case _:
            raise ValueError(f"dtype must be 'float32' or 'float16', got {dtype!r}")
