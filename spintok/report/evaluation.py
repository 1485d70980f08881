"""What ``spintok evaluate`` wrote, as far as the page shows it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from spintok.evaluate.perturbations import UNITS
from spintok.report.charts import Table
from spintok.report.page import number

__all__ = ["Bar", "Evaluation", "read_evaluation"]


@dataclass(frozen=True)
class Bar:
    """A value with its 95 % interval where there is one; ``share`` and the interval's ends are parts of the scale."""

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
    """The metrics of one tokenizer: figures by family, each with ``value`` and perhaps ``low`` and ``high``."""

    name: str
    metrics: Mapping[str, Any]

    def robustness(self) -> list[Bar]:
        """Unit edit distance, mean over utterances, of each condition; empty when it was not measured."""
        prefix = "ued_mean_"
        figures = self.metrics.get("robustness", {}).get("figures", {})
        found = {name.removeprefix(prefix): figure for name, figure in figures.items() if name.startswith(prefix)}
        highest = max([100.0, *(figure.get("high", figure["value"]) for figure in found.values())])
        bars: list[Bar] = []
        for name, figure in found.items():
            kind, _, strength = name.partition("_")
            low, high = figure.get("low"), figure.get("high")
            interval = None if low is None else (low / highest, high / highest)
            # Said once, where several strengths of a kind follow each other.
            said = bool(bars) and bars[-1].kind == kind
            meaning = "" if said else cast(Mapping[str, str], UNITS).get(kind, "")
            bars.append(Bar(kind, strength, meaning, figure["value"], low, high, figure["value"] / highest, interval))
        return bars

    def tables(self) -> list[tuple[str, str, Table]]:
        """Each family's name, what was drawn for its intervals, and all its figures."""
        return [
            (
                family,
                str(result.get("drawn") or ""),
                Table.of(
                    ("figure", "value", "95 % interval"),
                    [
                        (
                            name,
                            number(figure["value"], 4),
                            f"{number(figure['low'], 4)} to {number(figure['high'], 4)}" if "low" in figure else "",
                        )
                        for name, figure in result["figures"].items()
                    ],
                ),
            )
            for family, result in self.metrics.items()
        ]


def read_evaluation(path: Path, fingerprint: str) -> Evaluation:
    """The part of an ``evaluation.json`` that is about the tokenizer with this fingerprint.

    Raises ``ValueError`` when the file is not an evaluation, or is about other tokenizers only.
    """
    try:
        tokenizers = json.loads(path.read_text(encoding="utf-8"))["tokenizers"]
        found = {one["fingerprint"]: Evaluation(one["name"], one["metrics"]) for one in tokenizers}
        for one in found.values():
            for result in one.metrics.values():
                # What the page divides and rounds; anything else in the file is not its business.
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
