"""The interface of a metric: what it needs, what it is given, and what it returns."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from spintok.evaluate.abx_triples import Segment
from spintok.evaluate.bootstrap import Estimator, replicates
from spintok.evaluate.encode import Encoded, encode_all
from spintok.evaluate.options import Dataset, EvaluationOptions
from spintok.progress import Progress, no_progress
from spintok.tokenizer import Tokenizer

__all__ = ["Metric", "MetricInputs", "Result", "bootstrapped"]


@dataclass(frozen=True)
class MetricInputs:
    """What a metric measures: one tokenizer on one dataset.

    Attributes:
        segments: parts of utterances whose features ``encoded`` must hold.
    """

    tokenizer: Tokenizer
    dataset: Dataset
    options: EvaluationOptions
    progress: Progress = no_progress
    segments: Sequence[Segment] = ()

    @cached_property
    def encoded(self) -> Encoded:
        """Tokens and features of every utterance, encoded on first access."""
        return encode_all(self.tokenizer, self.dataset, self.options, self.segments, self.progress)

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
        drawn: how many of what the bootstrap drew, such as "607 utterances"; empty without draws.
        details: whatever is not a single number.
    """

    values: dict[str, float]
    draws: dict[str, list[float]] = field(default_factory=dict)
    drawn: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """A metric. Each is a module of this package and an entry of ``spintok.evaluate.run.METRICS``.

    Attributes:
        name: its name in ``--metrics`` and ``evaluation.json``.
        measure: computes it. It may raise ``ValueError`` if the data turn out not to allow it.
        missing: returns what the inputs lack, in words, and None if it can be measured.
        package: import name and PyPI name of the optional package that it needs.
        segments: returns the parts of utterances whose features it needs.
    """

    name: str
    measure: Callable[[MetricInputs], Result]
    missing: Callable[[MetricInputs], str | None] = lambda inputs: None
    package: tuple[str, str] | None = None
    segments: Callable[[MetricInputs], Sequence[Segment]] = lambda inputs: ()

    def unavailable(self, inputs: MetricInputs) -> str | None:
        """Why it cannot be measured, in words; None if it can."""
        if self.package is not None and importlib.util.find_spec(self.package[0]) is None:
            return f"{self.package[1]} is not installed: pip install 'spintok[evaluate]'"
        return self.missing(inputs)


def bootstrapped(
    estimator: Estimator,
    options: EvaluationOptions,
    unit: str = "utterances",
    details: dict[str, Any] | None = None,
) -> Result:
    """The values of an estimator with bootstrap replicates; ``unit`` names what is drawn. One unit gives no draws."""
    draws = {} if len(estimator.units) < 2 else replicates(estimator, options.draws, options.seed)
    return Result(
        estimator.values(),
        {name: values.tolist() for name, values in draws.items()},
        f"{len(estimator.units)} {unit}",
        details or {},
    )
