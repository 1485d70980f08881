"""Any s3prl upstream as a feature extractor."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spintok.frames import HOP, SAMPLE_RATE, num_frames
from spintok.models.importers.s3prl import build_upstream
from spintok.models.importers.weights import CheckpointError
from spintok.models.one_by_one import OneByOne
from spintok.models.statistics import WaveformStatistics

__all__ = ["Upstream", "load_upstream"]


class Upstream(OneByOne):
    """Features of any s3prl upstream with 50 frames per second.

    Each utterance is encoded alone, because upstreams let padding leak into their features; batches gain no speed.
    Layer ``n`` is s3prl's ``hidden_states[n]``. In Large models the last one has passed the final layer norm.

    What an upstream computes is decided by s3prl's code, by the settings in its checkpoint, and by its weights. A saved
    tokenizer therefore holds the upstream's name, the version of s3prl, the path and SHA-256 of a local checkpoint,
    and the weights. Loading asks s3prl for the upstream of that name, which reads its own checkpoint (a download, or
    the local path) for the settings, and replaces the weights by those saved. It refuses another version of s3prl,
    another local checkpoint, and weights of other shapes. The fingerprint does not depend on the path. s3prl does not
    know of SPINTOK_OFFLINE: it downloads a checkpoint that is not in its cache.

    Args:
        name: s3prl's name of the upstream.
        upstream: the upstream that s3prl built.
        ckpt: the local checkpoint, file or folder, that it was built from, if any.

    Raises:
        CheckpointError: the upstream does not give 50 frames per second, or its layers differ in width.
    """

    type_name = "s3prl"
    runs_in_threads = False
    context_frames = 250

    def __init__(self, name: str, upstream: nn.Module, *, ckpt: str | None = None) -> None:
        super().__init__()
        rate = _downsampling(upstream)
        if rate != HOP:
            raise CheckpointError(f"s3prl's {name} steps by {rate} samples per frame; spintok's frames step by {HOP}")
        self.name = name
        self.ckpt = ckpt
        self._ckpt_sha256 = None if ckpt is None else _sha256(Path(ckpt))
        self.upstream = upstream.eval()
        with torch.no_grad():
            trial = self._run(torch.randn(SAMPLE_RATE, generator=torch.Generator().manual_seed(0)))
        widths = {state.shape[-1] for state in trial}
        if len(widths) != 1:
            raise CheckpointError(f"the layers of s3prl's {name} have different widths: {sorted(widths)}")
        self._layers = len(trial) - 1
        self._width: int = widths.pop()

    @property
    def num_features(self) -> int:
        """D, the width of every layer."""
        return self._width

    @property
    def num_layers(self) -> int:
        """The number of the last layer."""
        return self._layers

    def features_alone(
        self, waveform: Tensor, layers: Sequence[int], statistics: WaveformStatistics | None
    ) -> list[Tensor]:
        found = self._run(waveform)
        count = num_frames(len(waveform))
        for layer in layers:
            if len(found[layer]) < count:
                raise ValueError(
                    f"s3prl's {self.name} gave {len(found[layer])} frames for {len(waveform)} samples, not {count}"
                )
        return [found[layer] for layer in layers]

    def statistics(self, blocks: Iterable[Tensor]) -> None:
        """None: upstreams take no statistics, so each chunk of a long recording is normalised by itself."""

    def truncated(self, layers: int) -> "Upstream":
        """A copy that gives only the layers up to ``layers``. It shares all weights, those above included."""
        self.check_layers([layers])
        shallow = copy(self)
        shallow._layers = layers
        return shallow

    def to_config(self) -> dict[str, Any]:
        return {**self._described(), **({} if self.ckpt is None else {"ckpt": self.ckpt})}

    def identity(self) -> dict[str, Any]:
        return {"type": self.type_name, **self._described()}

    def _described(self) -> dict[str, Any]:
        config = {"name": self.name, "s3prl": _installed(), "layers": self.num_layers}
        return config if self.ckpt is None else {**config, "ckpt_sha256": self._ckpt_sha256}

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> "Upstream":
        unknown = set(values) - {"name", "s3prl", "layers", "ckpt", "ckpt_sha256"}
        if unknown:
            raise ValueError(f"unknown field {', '.join(sorted(unknown))} of an s3prl upstream")
        name, ckpt = values["name"], values.get("ckpt")
        if not isinstance(name, str) or not isinstance(ckpt, str | None):
            raise ValueError("name and ckpt of an s3prl upstream must be texts")
        if ckpt is not None:
            if not Path(ckpt).exists():
                raise CheckpointError(f"s3prl's {name} was built from {ckpt}, which is not there: put the file back")
            if _sha256(Path(ckpt)) != values.get("ckpt_sha256"):
                raise CheckpointError(f"s3prl's {name} was built from {ckpt}, which has changed since")
        if values["s3prl"] != (installed := _installed()):
            raise CheckpointError(
                f"s3prl {values['s3prl']} made these features and {installed} is installed: "
                f"pip install s3prl=={values['s3prl']}"
            )
        return load_upstream(name, ckpt=ckpt).truncated(values["layers"])

    def _run(self, waveform: Tensor) -> list[Tensor]:
        return [states[0] for states in self.upstream([waveform])["hidden_states"]]


def load_upstream(name: str, *, ckpt: str | None = None) -> Upstream:
    """An s3prl upstream by name. s3prl downloads what it needs.

    Args:
        name: one of ``s3prl.hub.options()``.
        ckpt: a local checkpoint, file or folder, for names such as hubert_local or hf_hubert_custom.

    Raises:
        CheckpointError: there is no such upstream, it cannot be built, or it has another frame rate.
        ImportError: s3prl is not installed.
    """
    return Upstream(name, build_upstream(name, ckpt), ckpt=ckpt)


def _installed() -> str:
    """The version of s3prl."""
    try:
        return version("s3prl")
    except PackageNotFoundError:
        raise ImportError("s3prl is needed for its upstreams: pip install 'spintok[s3prl]'") from None


def _sha256(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of the files of a folder."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for part in sorted(part for part in path.rglob("*") if part.is_file()):
        digest.update(f"{part.relative_to(path).as_posix()}:{_sha256(part)}\n".encode())
    return digest.hexdigest()


def _downsampling(upstream: Any) -> int:
    rate = upstream.get_downsample_rates("hidden_states")
    return int(rate if isinstance(rate, int) else rate[-1])
