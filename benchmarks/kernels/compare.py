"""Compare a run with a saved one and name the regressions."""

from collections.abc import Sequence
from dataclasses import dataclass

from .harness import Row

__all__ = ["Change", "compare"]

LEAST = 0.05
"""Changes below 5 % are noise on any machine."""


@dataclass(frozen=True)
class Change:
    """One measurement in both runs: `ratio` is the new median over the old one."""

    row: Row
    ratio: float
    spread: float
    """Half the distance of the 20 % and 80 % quantiles over the median, the larger of both runs."""

    @property
    def regression(self) -> bool:
        """Whether it is slower by more than the spread of both runs."""
        return self.ratio > 1 + max(LEAST, 2 * self.spread)

    def __str__(self) -> str:
        row = self.row
        verdict = "SLOWER" if self.regression else "faster" if self.ratio < 1 - max(LEAST, 2 * self.spread) else "same"
        return (
            f"{verdict:6} x{self.ratio:.2f} (spread {100 * self.spread:.0f} %)  "
            f"{row.op} {row.mode} {row.shape}  {row.provider}"
        )


def compare(new: Sequence[Row], old: Sequence[Row]) -> list[Change]:
    """Return the changes of every measurement that both runs have, the slowest first."""
    before = {row.key: row for row in old if row.ms}
    changes = []
    for row in new:
        past = before.get(row.key)
        if row.ms is None or past is None or past.ms is None:
            continue
        changes.append(Change(row, row.ms / past.ms, max(_spread(row), _spread(past))))
    return sorted(changes, key=lambda change: -change.ratio)


def _spread(row: Row) -> float:
    if row.ms is None or row.ms_p20 is None or row.ms_p80 is None:
        return 0.0
    return (row.ms_p80 - row.ms_p20) / 2 / row.ms
