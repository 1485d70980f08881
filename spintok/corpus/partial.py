"""How far a long recording was encoded, in a hidden file beside its shard, so that a kill in its middle loses seconds.

The file is replaced as a whole every two seconds: 32 bytes of SHA-256, and safetensors with the arrays. It is taken up
only for the same utterance, by the same tokenizer, of an audio file with the same size and time. A shard is at one
long recording at a time, so it has one such file, which is deleted when the shard is complete.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from spintok._files import atomic

__all__ = ["Partial", "Saved", "partial_path"]

SHORTEST = 2.0
"""Seconds between two replacements that cost nothing."""
COST = 0.02
"""The part of the time that replacing the file may take."""
_STATE = "state"


class Saved(NamedTuple):
    """How far a recording was encoded.

    Attributes:
        samples: the number of samples at 16 kHz that are encoded.
        state: what ``Featurizer.iter_parts`` or ``parts_by_steps`` goes on from.
        values: JSON, of the shard's writer.
        arrays: the arrays of the shard's writer.
    """

    samples: int
    state: bytes
    values: Any
    arrays: Mapping[str, Tensor]


def partial_path(shard: Path) -> Path:
    """The file of a shard's long recording."""
    return shard.with_name(f".{shard.name}.partial")


class Partial:
    """How far one long recording of a shard was encoded, and keeping that.

    Args:
        shard: is being written.
        about: JSON that decides the result: tokenizer, utterance, size and time of the audio file. Files about
            something else are ignored. None if the audio file cannot be told from another: then nothing is kept.
        earlier: shards of other processes, whose files are only read.

    Attributes:
        saved: what was kept, the farthest first.
    """

    def __init__(self, shard: Path, about: Mapping[str, Any] | None, earlier: Sequence[Path] = ()) -> None:
        self._path = partial_path(shard)
        self._about = None if about is None else json.dumps(about)
        found = (_read(partial_path(path), self._about) for path in (shard, *earlier))
        self.saved = sorted((one for one in found if one is not None), key=lambda one: -one.samples)
        self._next = time.monotonic() + SHORTEST

    def keep(
        self,
        samples: int,
        state: Callable[[], bytes],
        *,
        values: Callable[[], Any] = lambda: None,
        arrays: Callable[[], Mapping[str, Tensor]] = dict,
    ) -> None:
        """Replace the file, if it is time to; the arguments are the fields of ``Saved``, computed only then."""
        started = time.monotonic()
        if self._about is None or started < self._next:
            return
        about = {"about": self._about, "samples": samples, "values": values()}
        place = torch.from_numpy(np.frombuffer(state(), np.uint8).copy())
        content = save({_STATE: place, **arrays()}, {"spintok_partial": json.dumps(about)})
        with atomic(self._path) as temporary:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)
        ended = time.monotonic()
        self._next = ended + max(SHORTEST, (ended - started) / COST)


def _read(path: Path, about: str | None) -> Saved | None:
    """What a file holds, unless it is missing, damaged, or about something else."""
    try:
        stored = path.read_bytes()
        digest, content = stored[:32], stored[32:]
        if about is None or hashlib.sha256(content).digest() != digest:
            return None
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        found = json.loads(header["__metadata__"]["spintok_partial"])
        if found["about"] != about:
            return None
        arrays = load(content)
        return Saved(found["samples"], arrays.pop(_STATE).numpy().tobytes(), found["values"], arrays)
    except (FileNotFoundError, SafetensorError, ValueError, KeyError, TypeError):
        return None
