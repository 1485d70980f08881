"""Charts as data, with positions from 0 to 1 on both axes. The page draws shapes as SVG and text as HTML.

A chart has one series of points, which the pointer and the arrow keys read out, and a table of its numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Chart", "Note", "Point", "Table", "Tick", "linear_ticks", "log_ticks", "thinned"]

Kind = Literal["line", "area", "bars"]

MOST_POINTS = 1000
"""Most points of a chart. More could not be seen, and the page must stay small for any codebook."""
MOST_ROWS = 1000
"""Most rows of a table."""

_SIDE = 1000


@dataclass(frozen=True)
class Tick:
    """A grid line and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Point:
    """A position on the chart and its tooltip."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Note:
    """Text beside a position on the chart: above it to the right or to the left, or below it."""

    x: float
    y: float
    text: str
    side: Literal["right", "left", "below"] = "right"


@dataclass(frozen=True)
class Table:
    """A table of numbers. Cells of the columns in ``chips`` are codes and are drawn as coloured chips."""

    head: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    chips: frozenset[int] = frozenset()
    more: int = 0

    @classmethod
    def of(cls, head: tuple[str, ...], rows: Sequence[tuple[Any, ...]], chips: Sequence[int] = ()) -> "Table":
        """A table of at most MOST_ROWS rows; ``more`` is the number of rows that were left out."""
        return cls(head, rows[:MOST_ROWS], frozenset(chips), max(0, len(rows) - MOST_ROWS))


@dataclass(frozen=True)
class Chart:
    """A chart of one series of points.

    Attributes:
        name: its id on the page.
        title: what it shows in general.
        finding: what it shows here, in a sentence.
        x_title, y_title: titles of the axes, with units.
        kind: the shape of the points.
        line: the corners (x, y) of a dashed line.
    """

    name: str
    title: str
    finding: str
    x_title: str
    y_title: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    kind: Kind
    points: Sequence[Point]
    table: Table
    notes: Sequence[Note] = ()
    line: Sequence[tuple[float, float]] = ()

    @property
    def shape(self) -> str:
        """The SVG path of the points in a square of 1000, with y pointing down."""
        match self.kind:
            case "bars":
                half = 0.42 / max(len(self.points), 1)
                corners = [
                    [(p.x - half, 0.0), (p.x - half, p.y), (p.x + half, p.y), (p.x + half, 0.0)]
                    for p in self.points
                    if p.y > 0
                ]
                return "".join(_path(bar) + "Z" for bar in corners)
            case "line":
                return _path([(p.x, p.y) for p in self.points])
            case "area":
                if not self.points:
                    return ""
                line = [(p.x, p.y) for p in self.points]
                return _path([(line[0][0], 0.0), *line, (line[-1][0], 0.0)]) + "Z"

    @property
    def edge(self) -> str:
        """The SVG path of the upper edge of an area; empty for the other kinds."""
        return _path([(p.x, p.y) for p in self.points]) if self.kind == "area" else ""

    @property
    def dashes(self) -> str:
        """The SVG path of the dashed line."""
        return _path(self.line)

    @property
    def data(self) -> list[tuple[float, float, str]]:
        """The points as the script reads them."""
        return [(round(p.x, 5), round(p.y, 5), p.text) for p in self.points]


def linear_ticks(highest: float, *, suffix: str = "", scale: float = 1.0, around: int = 5) -> tuple[float, list[Tick]]:
    """A round number at or above ``highest``, and ticks from 0 to it. Labels are values times ``scale``."""
    top = highest * scale if highest > 0 else 1.0
    power = 10.0 ** math.floor(math.log10(top / around))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * around >= top * (1 - 1e-9))
    count = math.ceil(top / step - 1e-9)
    ticks = [Tick(i / count, f"{i * step:.10g}{suffix}") for i in range(count + 1)]
    return count * step / scale, ticks


def log_ticks(lowest: float, highest: float) -> tuple[float, float, list[Tick]]:
    """The base-10 logarithms of round values (1, 2, 5) around positive shares, and ticks between them in per cent."""
    decades = range(math.floor(math.log10(lowest)) - 1, math.ceil(math.log10(highest)) + 2)
    round_values = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
    first = max(value for value in round_values if value <= lowest * (1 + 1e-9))
    last = min(value for value in round_values if value >= highest * (1 - 1e-9) and value > first)
    low, high = math.log10(first), math.log10(last)
    shown = [value for value in round_values if first <= value <= last]
    # Over more than two decades only the powers of ten are shown.
    if high - low > 2:
        shown = [value for value in shown if round(math.log10(value), 9).is_integer()]
    return low, high, [Tick((math.log10(value) - low) / (high - low), f"{100 * value:.10g} %") for value in shown]


def thinned(count: int) -> list[int]:
    """At most MOST_POINTS evenly spaced indices below ``count``, including the first and the last."""
    if count <= MOST_POINTS:
        return list(range(count))
    return sorted({round(i * (count - 1) / (MOST_POINTS - 1)) for i in range(MOST_POINTS)})


def _path(corners: Sequence[tuple[float, float]]) -> str:
    return "".join(f"{'L' if i else 'M'}{_SIDE * x:.5g} {_SIDE * (1 - y):.5g}" for i, (x, y) in enumerate(corners))
