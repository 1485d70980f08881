"""Checkpoints: a safetensors file with the trained weights, the optimizer's state and, as JSON metadata, the position.

Frozen weights are those of the model that a run starts from: checkpoints hold their digest only.

Every random draw of a run is a function of its seed and of the step, the epoch or the utterance, so checkpoints need no
state of random generators.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from spintok._files import atomic
from spintok.train.batching.plan import Position

__all__ = ["CheckpointError", "Checkpoints", "TrainState", "frozen_digest", "snapshot"]

_FORMAT = 3
_ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")


class CheckpointError(ValueError):
    """A checkpoint that cannot be resumed from; the message says what to do."""


class _DamagedError(Exception):
    """A file that is not a complete, unchanged checkpoint; the message is the reason."""


@dataclass(frozen=True)
class TrainState:
    """The progress of a run.

    Attributes:
        step: number of updates done.
        position: the position of the next batch.
        seconds: seconds of audio processed.
        scale: loss scale; None without float16.
    """

    step: int = 0
    position: Position = field(default_factory=Position)
    seconds: float = 0.0
    scale: float | None = None


class Checkpoints:
    """The last two checkpoints of a run.

    Args:
        folder: holds ``checkpoint.safetensors`` and, from the save before, ``checkpoint-previous.safetensors``.
        identity: JSON values that a run must share with a checkpoint to resume from it.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.latest = folder / "checkpoint.safetensors"
        self.previous = folder / "checkpoint-previous.safetensors"
        self._identity = identity
        self._latest_is_valid = False

    def write(self, tensors: Mapping[str, Tensor], state: TrainState) -> None:
        """Write a checkpoint of what ``snapshot`` copied; the last one becomes the previous one, unless it is damaged.

        At any time, at least one of the two files is a complete checkpoint.
        """
        about = {
            "format": _FORMAT,
            "step": state.step,
            "position": list(state.position),
            "seconds": state.seconds,
            "scale": state.scale,
            "identity": self._identity,
        }
        # One entry: safetensors writes several in random order, and equal runs would differ in their bytes.
        metadata = {"spintok": json.dumps({**about, "sha256": _digest(about, tensors)})}
        with atomic(self.latest) as temporary:
            save_file(dict(tensors), temporary, metadata=metadata)
            if self._latest_is_valid:
                self.latest.replace(self.previous)
        self._latest_is_valid = True

    def resume(self, model: nn.Module, optimizer: Optimizer, message: Callable[[str], None]) -> TrainState:
        """Load the last valid checkpoint into ``model`` and ``optimizer``, in place; without one, start at step 0.

        Args:
            model, optimizer: this run's model and optimizer.
            message: prints which checkpoint is used.

        Raises:
            CheckpointError: the checkpoint is of another run, or there are only damaged ones.
        """
        damaged: list[str] = []
        for path in (self.latest, self.previous):
            if not path.exists():
                continue
            try:
                about, tensors = _read(path)
            except _DamagedError as error:
                damaged.append(f"{path}: not a valid checkpoint ({error})")
                continue
            self._require_same_run(path, about["identity"])
            _restore(path, tensors, model, optimizer)
            state = TrainState(about["step"], Position(*about["position"]), about["seconds"], about["scale"])
            self._latest_is_valid = path == self.latest
            for problem in damaged:
                message(f"{problem}; using the one before it")
            message(f"resuming after step {state.step}")
            return state
        if damaged:
            raise CheckpointError(f"{damaged[0]}; delete it to start again from step 0")
        return TrainState()

    def _require_same_run(self, path: Path, theirs: Mapping[str, Any]) -> None:
        # JSON turns tuples into lists.
        ours, theirs = _flat(json.loads(json.dumps(self._identity))), _flat(theirs)
        different = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        if different:
            name = different[0]
            raise CheckpointError(
                f"{path}: belongs to a run with {name} = {theirs.get(name)!r}, not {ours.get(name)!r}; "
                "give another --output, or delete it to start again"
            )


def snapshot(model: nn.Module, optimizer: Optimizer, copies: dict[str, Tensor]) -> None:
    """Copy the weights that train and the optimizer's state to the CPU, into the tensors of ``copies`` or new ones."""
    frozen = _frozen(model)
    tensors = {f"model.{name}": value for name, value in model.state_dict().items() if name not in frozen}
    for i, parameter in enumerate(_parameters(optimizer)):
        state = optimizer.state[parameter]
        tensors |= {f"optimizer.{i}.{name}": state[name] for name in _ADAM_STATE if name in state}
    for name, value in tensors.items():
        if name not in copies:
            copies[name] = torch.empty(value.shape, dtype=value.dtype)
        copies[name].copy_(value.detach())


def frozen_digest(model: nn.Module) -> str | None:
    """The SHA-256 of the weights that do not train, for the identity of a run; None if all do."""
    frozen = _frozen(model)
    tensors = {name: value.detach().cpu() for name, value in model.state_dict().items() if name in frozen}
    return _digest({}, tensors) if tensors else None


def _frozen(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The metadata and tensors of a checkpoint, after checking its digest. Raises ``_DamagedError``."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about: dict[str, Any] = json.loads(metadata["spintok"])
        if about["format"] != _FORMAT:
            raise _DamagedError(
                f"its format is {about['format']!r} and not {_FORMAT}: another version of spintok wrote it"
            )
        if about.pop("sha256") != _digest(about, tensors):
            raise _DamagedError("its SHA-256 does not match")
        return about, tensors
    except (SafetensorError, AttributeError, KeyError, RuntimeError, TypeError, ValueError, OSError) as error:
        raise _DamagedError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None


def _restore(path: Path, tensors: Mapping[str, Tensor], model: nn.Module, optimizer: Optimizer) -> None:
    weights = {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
    own = model.state_dict()
    try:
        model.load_state_dict({**{name: own[name] for name in _frozen(model)}, **weights})
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"{path}: does not fit this model ({reason}); delete it to start again") from None
    fused = bool(optimizer.defaults.get("fused"))
    for i, parameter in enumerate(_parameters(optimizer)):
        state = {n: tensors[f"optimizer.{i}.{n}"] for n in _ADAM_STATE if f"optimizer.{i}.{n}" in tensors}
        # Torch keeps the step count on the CPU, unless the optimizer is fused.
        optimizer.state[parameter] = {
            name: value.to(parameter.device) if name != "step" or fused else value for name, value in state.items()
        }


def _digest(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the metadata and of the names, dtypes, shapes and values of the tensors."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _flat(values: Any, where: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists as one dictionary with names such as ``optimizer.betas.0``."""
    if isinstance(values, dict | list):
        pairs = values.items() if isinstance(values, dict) else enumerate(values)
        return {n: v for key, value in pairs for n, v in _flat(value, f"{where}.{key}" if where else str(key)).items()}
    return {where: values}


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
