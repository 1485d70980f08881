"""The interface of a metric: what it needs, what it is given, and what it returns."""

import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from torch import Tensor

from spintok.evaluate.abx_triples import Segment
from spintok.evaluate.bootstrap import MIN_SPEAKERS, Estimator, Grouped, replicates
from spintok.evaluate.encode import Encoded, encode_all
from spintok.evaluate.options import Dataset, EvaluationOptions
from spintok.progress import Progress, no_progress
from spintok.tokenizer import Tokenizer
from spintok.tokens import Tokens

__all__ = [
    "Decoder",
    "Metric",
    "MetricInputs",
    "Result",
    "bootstrapped",
    "bootstrapped_speakers",
    "bootstrapped_utterances",
    "grouped",
    "slug",
]


class Decoder(Protocol):
    """What turns the tokens of one codebook into sound."""

    @property
    def fingerprint(self) -> str:
        """Decoders of equal fingerprints give equal sound."""

    def decode(self, tokens: Tokens) -> Tensor:
        """The waveform (S,) at 16 kHz."""


@dataclass(frozen=True)
class MetricInputs:
    """What a metric measures: one tokenizer on one dataset.

    Attributes:
        segments: parts of utterances whose features ``encoded`` must hold.
        skipped: utterances whose audio could not be read, with the reason; metrics leave them out and add to it.
        decoder: speaks the tokens of ``codebook``, if there is one.
    """

    tokenizer: Tokenizer
    dataset: Dataset
    options: EvaluationOptions
    progress: Progress = no_progress
    segments: Sequence[Segment] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    decoder: Decoder | None = None

    @cached_property
    def encoded(self) -> Encoded:
        """Tokens and features of every utterance that can be read, encoded on first access."""
        return encode_all(self.tokenizer, self.dataset, self.options, self.segments, self.skipped, self.progress)

    @property
    def codebook(self) -> str:
        """The name of the codebook to measure."""
        return self.options.codebook or self.tokenizer.codebook_names[0]


@dataclass(frozen=True)
class Result:
    """What a metric returns; plain values that JSON holds.

    Attributes:
        values: numbers by name.
        draws: bootstrap replicates of those numbers that have them.
        drawn: how many units the bootstrap drew, such as "54 speakers", or why it drew none.
        details: whatever is not a single number.
        skipped: utterances whose audio could not be read, with the reason.
    """

    values: dict[str, float]
    draws: dict[str, list[float]] = field(default_factory=dict)
    drawn: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """A metric. Each is a module of this package and an entry of ``spintok.evaluate.run.METRICS``.

    Attributes:
        name: its name in ``--metrics`` and ``evaluation.json``.
        measure: computes it. It may raise ``ValueError`` if the data turn out not to allow it.
        missing: returns what the inputs lack, in words, and None if it can be measured.
        package: import name and PyPI name of the optional package that it needs.
        segments: returns the parts of utterances whose features it needs.
        depends: returns what its result depends on beyond the tokenizer, the utterances and the options, as text.
    """

    name: str
    measure: Callable[[MetricInputs], Result]
    missing: Callable[[MetricInputs], str | None] = lambda inputs: None
    package: tuple[str, str] | None = None
    segments: Callable[[MetricInputs], Sequence[Segment]] = lambda inputs: ()
    depends: Callable[[MetricInputs], str] = lambda inputs: ""

    def unavailable(self, inputs: MetricInputs) -> str | None:
        """Why it cannot be measured, in words; None if it can."""
        if self.package is not None and importlib.util.find_spec(self.package[0]) is None:
            return f"{self.package[1]} is not installed: pip install 'spintok[evaluate]'"
        return self.missing(inputs)


def bootstrapped(estimator: Estimator, inputs: MetricInputs, details: dict[str, Any] | None = None) -> Result:
    """The values of an estimator over utterances, with bootstrap replicates over their speakers.

    Without speakers the utterances are drawn. Fewer than MIN_SPEAKERS speakers, or one utterance, give no replicates.
    """
    speakers, options = inputs.dataset.speakers, inputs.options
    if speakers:
        return _drawn(grouped(estimator, inputs), options, "speakers", MIN_SPEAKERS, details)
    return _drawn(estimator, options, "utterances", 2, details)


def bootstrapped_speakers(
    estimator: Estimator, options: EvaluationOptions, details: dict[str, Any] | None = None
) -> Result:
    """The same for an estimator over speakers."""
    return _drawn(estimator, options, "speakers", MIN_SPEAKERS, details)


def bootstrapped_utterances(
    estimator: Estimator, options: EvaluationOptions, unit: str, details: dict[str, Any] | None = None
) -> Result:
    """The same over utterances, which ``unit`` describes, whoever spoke them."""
    return _drawn(estimator, options, unit, 2, details)


def grouped(estimator: Estimator, inputs: MetricInputs) -> Grouped:
    """An estimator over utterances as one over speakers; an utterance without a speaker is a group of its own."""
    speakers = inputs.dataset.speakers
    return Grouped(estimator, [speakers.get(unit, unit) for unit in estimator.units])


def _drawn(
    estimator: Estimator, options: EvaluationOptions, unit: str, least: int, details: dict[str, Any] | None
) -> Result:
    number = len(estimator.units)
    if number < least:
        return Result(estimator.values(), {}, f"{number} {unit}, too few for intervals", details or {})
    draws = replicates(estimator, options.draws, options.seed)
    values = {name: found.tolist() for name, found in draws.items()}
    return Result(estimator.values(), values, f"{number} {unit}", details or {})


def slug(name: str) -> str:
    """A name as part of the name of a value: lower case, with one underscore for any other characters."""
    return "_".join(re.findall(r"[^\W_]+", name.lower())) or "unnamed"
