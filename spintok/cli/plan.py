"""What ``spintok encode --plan`` prints."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Column, Table

from spintok.cli.output import say

if TYPE_CHECKING:
    from spintok.corpus.cluster.plan import Plan

__all__ = ["print_plan"]

LARGER = (1_000.0, 100_000.0, 10_000_000.0)
"""Hours of audio of the other rows."""


def print_plan(plan: "Plan", device: str, price: float) -> None:
    """Print a plan: what was measured, and a row for this corpus and for larger ones."""
    say(
        f"{plan.files:,} files, {plan.hours:,.2f} h; measured on {plan.sample:,.0f} s of audio on {device}: reading "
        f"{plan.sample / plan.reading:,.0f} x real time a thread, the model {plan.sample / plan.encoding:,.0f} x, "
        f"together {plan.speed:,.0f} x; {plan.bottleneck} takes longest"
    )
    names = ["hours of audio", "hours of one worker", "workers for a day", "GB of shards", *(["cost"] if price else [])]
    table = Table(*(Column(name, justify="right") for name in names), box=None)
    for hours in (plan.hours, *LARGER):
        row = plan.row(hours, price)
        days = -(-row.worker_hours // 24)
        cells = (f"{hours:,.2f}", f"{row.worker_hours:,.2f}", f"{days:,.0f}", f"{row.gigabytes:,.3f}")
        table.add_row(*cells, *((f"{row.cost:,.2f}",) if price else ()))
    Console().print(table)
