"""What an evaluation is asked to measure, how, and on what speech."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from spintok.data.alignments import Alignment
from spintok.data.manifest import Utterance
from spintok.evaluate.abx import Sampling, Unit
from spintok.evaluate.features import layers_of
from spintok.evaluate.perturbations import CONDITIONS, Condition, Material
from spintok.evaluate.phones import TOLERANCE
from spintok.evaluate.speaker import FOLDS
from spintok.tokenizer import Tokenizer

__all__ = ["METRICS", "Metric", "Progress", "Settings", "Speech", "lacking", "needs_hearing"]

Metric = Literal["stats", "phones", "abx", "robustness", "speaker", "predictability", "probe", "similarity"]
METRICS: tuple[Metric, ...] = (
    "stats",
    "phones",
    "abx",
    "robustness",
    "speaker",
    "predictability",
    "probe",
    "similarity",
)

Progress = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and how much there is."""

_PACKAGES: dict[Metric, tuple[str, str]] = {
    "robustness": ("rapidfuzz", "rapidfuzz"),
    "speaker": ("sklearn", "scikit-learn"),
    "predictability": ("tokenizers", "tokenizers"),
    "probe": ("sklearn", "scikit-learn"),
}


@dataclass(frozen=True)
class Settings:
    """What is measured and how; the same settings give the same figures.

    Attributes:
        codebook: whose tokens are measured; the primary by default.
        layers: of the encoder, for probe and similarity; all by default.
        tolerance: of boundaries, in seconds.
        unit: of ABX.
        sampling: of ABX.
        conditions: of robustness.
        robustness_utterances: at most so many, drawn at random: each is encoded once a condition.
        order: of the largest n-gram model.
        merges: of BPE.
        probe_frames: of the probe and of similarity, about.
        draws: of the bootstrap.
        seed: of every random draw.
    """

    codebook: str | None = None
    layers: tuple[int, ...] = ()
    tolerance: float = TOLERANCE
    unit: Unit = "triphone"
    sampling: Sampling = field(default_factory=Sampling)
    conditions: tuple[Condition, ...] = CONDITIONS
    robustness_utterances: int = 200
    order: int = 3
    merges: int = 1000
    probe_frames: int = 20_000
    draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("robustness_utterances", "order", "probe_frames", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.merges < 0 or not self.tolerance > 0:
            raise ValueError(f"need merges from 0 and a tolerance above 0, got {self.merges} and {self.tolerance}")


@dataclass(frozen=True)
class Speech:
    """The speech that tokenizers are measured on.

    Attributes:
        utterances: the recordings.
        alignments: by utterance key, of those that have one.
        material: what robustness mixes in.
    """

    utterances: tuple[Utterance, ...]
    alignments: Mapping[str, Alignment]
    material: Material

    @property
    def speakers(self) -> dict[str, str]:
        """By utterance key, of those whose speaker is known."""
        return {u.key: u.speaker for u in self.utterances if u.speaker is not None}


def lacking(metric: Metric, speech: Speech, tokenizer: Tokenizer) -> str | None:
    """What a metric needs and does not have, in words; None when it can be measured."""
    module, package = _PACKAGES.get(metric, ("", ""))
    if module and importlib.util.find_spec(module) is None:
        return f"{package} is not installed: pip install 'spintok[evaluate]'"
    counts = np.unique([*speech.speakers.values()], return_counts=True)[1]
    aligned = any(alignment.phones for alignment in speech.alignments.values())
    match metric:
        case "phones" if not aligned and not any(alignment.words for alignment in speech.alignments.values()):
            return "neither phones nor words are given (--alignments, --words)"
        case "probe" | "abx" if not aligned:
            return "no phones are given (--alignments)"
        case "abx" if not counts.size:
            return "speakers are not known: give a manifest with a field speaker"
        case "speaker" if (counts >= FOLDS).sum() < 2:
            return f"fewer than two speakers with {FOLDS} utterances are known: give a manifest with a field speaker"
        case "predictability" if len(speech.utterances) < 2:
            return "there is one utterance only"
        case "similarity" if len(layers_of(tokenizer)) < 2:
            return "the encoder has no layers to compare; name another tokenizer with --against"
        case _:
            return None


def needs_hearing(metrics: Sequence[Metric]) -> bool:
    """Whether any of these metrics needs the pass over all audio."""
    return not set(metrics).isdisjoint({"stats", "phones", "abx", "speaker", "predictability"})
