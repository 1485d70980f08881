"""Charts as data: places from 0 to 1 on either axis. The page draws them as SVG that stretches and text that does not.

A chart has one row of points, which pointer and arrow keys read out, and a table with its numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Chart", "Note", "Point", "Table", "Tick", "linear_ticks", "log_ticks", "thinned"]

Kind = Literal["line", "area", "bars"]

MOST_POINTS = 1000
"""Points of a chart; more would not be seen, and the page must stay small for any codebook."""
MOST_ROWS = 1000
"""Rows of a table."""

_SIDE = 1000


@dataclass(frozen=True)
class Tick:
    """A grid line and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class Point:
    """A place on the chart and what it says."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Note:
    """Words at a place on the chart; ``left`` puts them to its left, where the right is narrow."""

    x: float
    y: float
    text: str
    left: bool = False


@dataclass(frozen=True)
class Table:
    """Numbers behind a figure; a cell that is an integer code is drawn as a chip when its column is in ``chips``."""

    head: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    chips: frozenset[int] = frozenset()
    more: int = 0

    @classmethod
    def of(cls, head: tuple[str, ...], rows: Sequence[tuple[Any, ...]], chips: Sequence[int] = ()) -> "Table":
        """At most MOST_ROWS rows; ``more`` says how many were left out."""
        return cls(head, rows[:MOST_ROWS], frozenset(chips), max(0, len(rows) - MOST_ROWS))


@dataclass(frozen=True)
class Chart:
    """A chart of one row of points.

    Attributes:
        name: its id on the page.
        title, finding: what it shows, and in a sentence what it shows here.
        x_title, y_title: with units.
        kind: how points become a shape.
        line: a second, dashed line, as corners (x, y).
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
        """The SVG path of the points, in a square of 1000, y downwards."""
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
        """The SVG path of the line that an area has on top; empty for the other kinds."""
        return _path([(p.x, p.y) for p in self.points]) if self.kind == "area" else ""

    @property
    def dashes(self) -> str:
        """The SVG path of the dashed line."""
        return _path(self.line)

    @property
    def data(self) -> list[tuple[float, float, str]]:
        """The points for the script."""
        return [(round(p.x, 5), round(p.y, 5), p.text) for p in self.points]


def linear_ticks(highest: float, *, suffix: str = "", scale: float = 1.0, around: int = 5) -> tuple[float, list[Tick]]:
    """A round upper end at or above ``highest``, and ticks from 0 to it; labels are values times ``scale``."""
    top = highest * scale if highest > 0 else 1.0
    power = 10.0 ** math.floor(math.log10(top / around))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * around >= top * (1 - 1e-9))
    count = math.ceil(top / step - 1e-9)
    ticks = [Tick(i / count, f"{i * step:.10g}{suffix}") for i in range(count + 1)]
    return count * step / scale, ticks


def log_ticks(lowest: float, highest: float) -> tuple[float, float, list[Tick]]:
    """The exponents of the powers of ten around positive values, and a tick for each: shares as percentages."""
    low, high = math.floor(math.log10(lowest) + 1e-9), math.ceil(math.log10(highest) - 1e-9)
    high = max(high, low + 1)
    step = -(-(high - low) // 6)
    ticks = [Tick((e - low) / (high - low), f"{100 * 10.0**e:.10g} %") for e in range(low, high + 1, step)]
    return low, high, ticks


def thinned(count: int) -> list[int]:
    """At most MOST_POINTS places among ``count``, the first and the last with them, evenly spread."""
    if count <= MOST_POINTS:
        return list(range(count))
    return sorted({round(i * (count - 1) / (MOST_POINTS - 1)) for i in range(MOST_POINTS)})


def _path(corners: Sequence[tuple[float, float]]) -> str:
    return "".join(
        f"{'L' if i else 'M'}{_SIDE * x:.5g} {_SIDE * (1 - y):.5g}" for i, (x, y) in enumerate(corners)
    )
