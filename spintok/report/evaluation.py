"""Read ``evaluation.json`` for the page of a token folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spintok.report.charts import Table
from spintok.report.page import number

__all__ = ["Bar", "Evaluation", "read_evaluation"]


@dataclass(frozen=True)
class Bar:
    """A value and its 95 % interval, if it has one; ``share`` and ``interval`` are fractions of the scale."""

    kind: str
    strength: str
    meaning: str
    value: float
    low: float | None
    high: float | None
    share: float
    interval: tuple[float, float] | None

    @property
    def text(self) -> str:
        """The value, and the interval in brackets."""
        return f"{self.value:.1f}" + ("" if self.low is None else f" [{self.low:.1f}, {self.high:.1f}]")


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one tokenizer.

    Attributes:
        name: the name of the tokenizer.
        metrics: results by metric; each of their ``figures`` has a ``value`` and perhaps ``low`` and ``high``.
        units: what the strength of each condition of robustness means, by condition.
        codebook: the codebook that was measured; None is the primary one.
        silence_codes: the codes of silence; None if phones were not measured.
    """

    name: str
    metrics: Mapping[str, Any]
    units: Mapping[str, str]
    codebook: str | None
    silence_codes: list[int] | None

    def robustness(self) -> list[Bar]:
        """Unit edit distance under each condition, mean over utterances; empty if it was not measured."""
        prefix = "ued_mean_"
        figures = self.metrics.get("robustness", {}).get("figures", {})
        found = {name.removeprefix(prefix): figure for name, figure in figures.items() if name.startswith(prefix)}
        highest = max([100.0, *(figure.get("high", figure["value"]) for figure in found.values())])
        bars: list[Bar] = []
        for name, figure in found.items():
            kind, _, strength = name.partition("_")
            low, high = figure.get("low"), figure.get("high")
            interval = None if low is None else (low / highest, high / highest)
            # Several strengths of one kind follow each other; only the first explains the unit.
            repeated = bool(bars) and bars[-1].kind == kind
            meaning = "" if repeated else self.units.get(name, "")
            bars.append(Bar(kind, strength, meaning, figure["value"], low, high, figure["value"] / highest, interval))
        return bars

    def tables(self) -> list[tuple[str, str, Table]]:
        """For each metric its name, the units that the bootstrap drew, and a table of its values."""
        return [
            (
                name,
                str(result.get("drawn") or ""),
                Table.of(
                    ("figure", "value", "95 % interval"),
                    [
                        (
                            value,
                            number(figure["value"], 4),
                            f"{number(figure['low'], 4)} to {number(figure['high'], 4)}" if "low" in figure else "",
                        )
                        for value, figure in result["figures"].items()
                    ],
                ),
            )
            for name, result in self.metrics.items()
        ]


def read_evaluation(path: Path, fingerprint: str) -> Evaluation:
    """The part of an ``evaluation.json`` about the tokenizer with this fingerprint.

    Raises ``ValueError`` if the file is not an evaluation, or only of other tokenizers.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        codebook = content.get("settings", {}).get("codebook")
        found = {one["fingerprint"]: _evaluation(one, codebook) for one in content["tokenizers"]}
        for one in found.values():
            for result in one.metrics.values():
                # The page does arithmetic with these only, so it checks nothing else.
                for figure in result["figures"].values():
                    for end in ("value", "low", "high"):
                        figure.update({end: float(figure[end])} if end in figure or end == "value" else {})
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not the JSON that spintok evaluate writes ({error!r})") from None
    if fingerprint not in found:
        names = ", ".join(one.name for one in found.values()) or "nothing"
        raise ValueError(f"{path}: measures {names}, with other weights than the tokenizer of these tokens")
    return found[fingerprint]


def _evaluation(tokenizer: Mapping[str, Any], codebook: Any) -> Evaluation:
    metrics = tokenizer["metrics"]
    conditions = metrics.get("robustness", {}).get("details", {}).get("conditions", {})
    units = {str(name): str(condition["unit"]) for name, condition in conditions.items()}
    silence = metrics.get("phones", {}).get("details", {}).get("silence_codes")
    codes = None if silence is None else [int(code) for code in silence]
    return Evaluation(tokenizer["name"], metrics, units, None if codebook is None else str(codebook), codes)
