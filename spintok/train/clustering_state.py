"""Where a clustering is, in a file, so that a process that was killed goes on after its last passes."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from spintok._files import atomic

__all__ = ["ClusteringState", "KMeansResult", "StateFile"]

SAVE_EVERY = 2.0
"""Seconds of passes that a killed process loses, and one pass."""


@dataclass(frozen=True)
class KMeansResult:
    """Codewords (K, D) float32, the mean squared distance to them before the last move, and the number of passes."""

    codewords: Tensor
    distance: float
    iterations: int


@dataclass(frozen=True)
class ClusteringState:
    """A clustering between two passes.

    Attributes:
        start: number of the random start, from 0.
        passed: the codewords after its passes so far.
        best: the best result of the starts before it; None if there are none.
        generator: state of numpy's generator after the draws of this start.
    """

    start: int
    passed: KMeansResult
    best: KMeansResult | None
    generator: Mapping[str, Any]


class StateFile:
    """A file with a ``ClusteringState``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved = time.monotonic()

    def read(self) -> ClusteringState | None:
        """The state that was written last, or None. Raises ``ValueError`` if the file is damaged."""
        if not self._path.exists():
            return None
        try:
            with safe_open(self._path, framework="pt") as file:
                about = json.loads(file.metadata()["spintok"])
                passed, best = (
                    KMeansResult(file.get_tensor(name), *about[name]) if about[name] else None
                    for name in ("passed", "best")
                )
            if passed is None:
                raise ValueError("no codewords")
            return ClusteringState(about["start"], passed, best, about["generator"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self._path}: not the state of a clustering ({error}); delete it to start again"
            ) from None

    def keep(self, state: ClusteringState) -> None:
        """Write ``state`` if the last write is a while ago."""
        if time.monotonic() < self._saved + SAVE_EVERY:
            return
        results = {"passed": state.passed, "best": state.best}
        about = {name: result and [result.distance, result.iterations] for name, result in results.items()}
        metadata = {"spintok": json.dumps({"start": state.start, "generator": state.generator, **about})}
        with atomic(self._path) as temporary:
            tensors = {name: result.codewords for name, result in results.items() if result is not None}
            save_file(tensors, temporary, metadata=metadata)
        self._saved = time.monotonic()
