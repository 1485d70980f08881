"""The tokenizer folder: config.json, model.safetensors, and the fingerprint of both."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from spintok._files import atomic

__all__ = ["FORMAT", "StoredDtype", "TokenizerError", "fingerprint", "is_tokenizer", "read_folder", "write_folder"]

FORMAT = 1
"""The version of the folder's layout that this release reads and writes."""

StoredDtype = Literal["float32", "float16"]
"""The dtype of weights in the file; in memory they are always float32."""


class TokenizerError(ValueError):
    """A tokenizer folder cannot be used; the message names the folder and the cause."""


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


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the weights of a tokenizer folder.

    Raises:
        TokenizerError: a file is missing or damaged, or the folder holds something else.
    """
    config = _read_config(folder)
    path = folder / "model.safetensors"
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise TokenizerError(f"{path}: missing, so this tokenizer is incomplete") from None
    except Exception as error:
        # A damaged header fails in any way, inside safetensors or torch.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TokenizerError(f"{folder}: model.safetensors is damaged ({reason[:200]})") from None
    for name, tensor in weights.items():
        if tensor.dtype not in (torch.float32, torch.float16) and tensor.is_floating_point():
            raise TokenizerError(f"{folder}: {name} is stored as {tensor.dtype}; float32 and float16 are read")
    return config, weights


def is_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer; models of Hugging Face have a config.json too."""
    try:
        return "spintok_format" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TokenizerError(f"{path}: missing, so this tokenizer is incomplete") from None
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{folder}: config.json does not describe a tokenizer: {error!r}"[:300]) from None
    if not isinstance(config, dict):
        raise TokenizerError(f"{folder}: config.json does not describe a tokenizer: it is not a JSON object")
    if "spintok_format" not in config:
        raise TokenizerError(
            f"{folder}: contains an encoder, not a tokenizer: train a codebook on it (spintok train recipes/...)"
        )
    if config["spintok_format"] != FORMAT:
        found = str(config["spintok_format"])[:80]
        raise TokenizerError(f"{folder}: config.json has the format {found}; this release reads {FORMAT}")
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
