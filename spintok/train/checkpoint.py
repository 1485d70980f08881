"""Checkpoints: one safetensors file with weights, the optimizer's state and, as JSON, where the run stands.

Every random draw of a run is a function of its seed and of the step, the epoch or the utterance, so where the run
stands is all that there is to know of its random generators.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from spintok._files import atomic
from spintok.train.batching.plan import Place

__all__ = ["CheckpointError", "Standing", "load_checkpoint", "save_checkpoint"]

_FORMAT = 1
_STATE = ("step", "exp_avg", "exp_avg_sq")


class CheckpointError(ValueError):
    """A checkpoint that does not fit the run; the message says how to go on."""


@dataclass(frozen=True)
class Standing:
    """Where a run stands.

    Attributes:
        step: updates done.
        place: the next batch.
        seconds: of audio that went in.
        scale: of the loss, in float16.
    """

    step: int = 0
    place: Place = field(default_factory=Place)
    seconds: float = 0.0
    scale: float | None = None


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: Optimizer, standing: Standing, identity: Mapping[str, Any]
) -> None:
    """Write a checkpoint; it appears whole or not at all.

    ``identity`` is what a run must share to go on from it: plain values that JSON holds.
    """
    tensors = {f"model.{name}": value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    for i, parameter in enumerate(_parameters(optimizer)):
        for name in _STATE:
            if name in optimizer.state[parameter]:
                tensors[f"optimizer.{i}.{name}"] = optimizer.state[parameter][name].detach().cpu().contiguous()
    about = {
        "format": _FORMAT,
        "step": standing.step,
        "place": list(standing.place),
        "seconds": standing.seconds,
        "scale": standing.scale,
        "identity": identity,
    }
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"spintok": json.dumps(about)})


def load_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer, identity: Mapping[str, Any]) -> Standing:
    """Put a checkpoint's state into ``model`` and ``optimizer``, in place, and return where it stands.

    Raises:
        CheckpointError: the file is damaged, or of a run with another ``identity``.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["spintok"])
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        _same_run(path, identity, about["identity"])
        model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
        for i, parameter in enumerate(_parameters(optimizer)):
            state = {name: tensors[f"optimizer.{i}.{name}"] for name in _STATE if f"optimizer.{i}.{name}" in tensors}
            # Torch keeps the count of steps on the CPU, unless the optimizer is fused.
            optimizer.state[parameter] = {
                name: value.to(parameter.device) if name != "step" or _fused(optimizer) else value
                for name, value in state.items()
            }
        return Standing(int(about["step"]), Place(*about["place"]), float(about["seconds"]), about["scale"])
    except (SafetensorError, KeyError, RuntimeError, TypeError, json.JSONDecodeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: not a whole checkpoint of this run ({reason}); delete it to begin anew"
        ) from None


def _same_run(path: Path, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    # What JSON makes of it: tuples are lists.
    flat = _flat(json.loads(json.dumps(mine)))
    other = _flat(theirs)
    differing = sorted(name for name in flat.keys() | other.keys() if flat.get(name) != other.get(name))
    if differing:
        name = differing[0]
        raise CheckpointError(
            f"{path}: is of a run with {name} = {other.get(name)!r}, not {flat.get(name)!r}; "
            "take another --output, or delete it to begin anew"
        )


def _flat(values: Any, where: str = "") -> dict[str, Any]:
    if isinstance(values, dict | list):
        pairs = values.items() if isinstance(values, dict) else enumerate(values)
        return {n: v for key, value in pairs for n, v in _flat(value, f"{where}.{key}" if where else str(key)).items()}
    return {where: values}


def _parameters(optimizer: Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _fused(optimizer: Optimizer) -> bool:
    return bool(optimizer.defaults.get("fused"))
