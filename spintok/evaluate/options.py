"""Options of an evaluation, and the dataset that it measures on."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spintok.data.labels.alignments import Alignment, Interval
from spintok.data.manifest import Utterance
from spintok.evaluate.abx_triples import Sampling, Unit
from spintok.evaluate.boundaries import TOLERANCE
from spintok.evaluate.noise_sources import NoiseSources
from spintok.evaluate.perturbations import CONDITIONS, Condition

__all__ = ["Dataset", "EvaluationOptions"]


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of all metrics. The same options give the same values.

    Attributes:
        codebook: the codebook whose tokens are measured; None is the primary one.
        layers: encoder layers for probe and similarity; empty means all.
        tolerance: largest distance in seconds between a boundary and its match.
        unit: what ABX compares.
        sampling: limits of the ABX triples.
        conditions: what robustness does to the speech.
        robustness_utterances: robustness uses at most this many utterances, chosen at random.
        resynthesis_utterances: resynthesis uses at most this many utterances, chosen at random.
        order: order of the largest n-gram model.
        merges: number of BPE merges.
        probe_frames: approximate number of frames for probe and similarity.
        draws: number of bootstrap replicates.
        seed: seed of every random choice.
    """

    codebook: str | None = None
    layers: tuple[int, ...] = ()
    tolerance: float = TOLERANCE
    unit: Unit = "triphone"
    sampling: Sampling = field(default_factory=Sampling)
    conditions: tuple[Condition, ...] = CONDITIONS
    robustness_utterances: int = 200
    resynthesis_utterances: int = 200
    order: int = 3
    merges: int = 1000
    probe_frames: int = 20_000
    draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("robustness_utterances", "resynthesis_utterances", "order", "probe_frames", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.merges < 0 or not self.tolerance > 0:
            raise ValueError(f"merges must be at least 0, tolerance above 0: got {self.merges} and {self.tolerance}")


@dataclass(frozen=True)
class Dataset:
    """The speech that tokenizers are measured on.

    Attributes:
        utterances: the recordings.
        alignments: phones and words by utterance key, for the utterances that have them.
        noise_sources: sounds that robustness mixes in.
        texts: texts by utterance key, for the utterances that have them.
        target: recordings of the voice that decoders speak with, for resynthesis.
    """

    utterances: tuple[Utterance, ...]
    alignments: Mapping[str, Alignment]
    noise_sources: NoiseSources
    texts: Mapping[str, str] = field(default_factory=dict)
    target: tuple[Utterance, ...] = ()

    @property
    def digest(self) -> str:
        """Hexadecimal digits that tell one list of recordings from another, by their keys and paths."""
        digest = hashlib.sha256()
        for utterance in self.utterances:
            where = utterance.path.absolute() if isinstance(utterance.path, Path) else utterance.path
            digest.update(f"{utterance.key}\t{where}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]

    @property
    def speakers(self) -> dict[str, str]:
        """Speakers by utterance key, for the utterances whose speaker is known."""
        return {u.key: u.speaker for u in self.utterances if u.speaker is not None}

    @property
    def phones(self) -> dict[str, tuple[Interval, ...]]:
        """Phones by utterance key, for the utterances that have them."""
        return {key: alignment.phones for key, alignment in self.alignments.items() if alignment.phones}

    @property
    def words(self) -> dict[str, tuple[Interval, ...]]:
        """Words by utterance key, for the utterances that have them."""
        return {key: alignment.words for key, alignment in self.alignments.items() if alignment.words}

    def sample(self, number: int, seed: int) -> list[Utterance]:
        """At most ``number`` utterances, chosen at random, in their order."""
        if len(self.utterances) <= number:
            return list(self.utterances)
        chosen = np.random.default_rng(seed).permutation(len(self.utterances))[:number]
        return [self.utterances[i] for i in np.sort(chosen).tolist()]
