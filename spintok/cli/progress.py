"""One progress display for all commands: bars on a terminal, a line now and then in a log file."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Literal

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from spintok.cli.output import printable

__all__ = ["ProgressDisplay", "progress_display"]

LINE_SECONDS = 30.0
"""Time between two lines where standard error is not a terminal."""

Unit = Literal["", "files", "bytes", "steps", "seconds"]


class ProgressDisplay:
    """A ``spintok.progress.Progress`` that draws a bar for each task on standard error.

    Where standard error is not a terminal, it prints a line every ``LINE_SECONDS``, and one at once for each
    download (``unit="bytes"``).
    """

    def __init__(self, *, quiet: bool = False, unit: Unit = "") -> None:
        """Draw nothing and print nothing if ``quiet``."""
        self.console = Console(stderr=True, quiet=quiet, soft_wrap=True, highlight=False)
        self._unit = unit
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            _Count(unit),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last_line = time.monotonic()

    def __call__(self, task: str, done: float, total: float, note: str = "") -> None:
        """Move the bar of ``task``, which appears with the first call."""
        task, note = printable(task), printable(note)
        new = task not in self._tasks
        if new:
            self._tasks[task] = self._bars.add_task(task, total=total or None, note=note)
            if len(self._tasks) == 1:
                self._bars.start()
        self._bars.update(self._tasks[task], completed=done, total=total or None, note=note)
        if not self.console.is_terminal:
            self._print_line(task, done, total, note, at_once=new and self._unit == "bytes")

    def message(self, text: str) -> None:
        """Print a line above the bars."""
        self.console.print(Text(printable(text)))

    def close(self) -> None:
        """Stop drawing and leave the bars as they are."""
        if self._tasks:
            self._bars.stop()

    def _print_line(self, task: str, done: float, total: float, note: str, *, at_once: bool) -> None:
        now = time.monotonic()
        if at_once or now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            if self._unit == "bytes":
                self.message(f"downloading {task}, {total / 1e6:.1f} MB")
            else:
                self.message(", ".join(part for part in (f"{task}: {_count(done, total, self._unit)}", note) if part))


@contextmanager
def progress_display(*, quiet: bool = False, unit: Unit = "") -> Iterator[ProgressDisplay]:
    """A display that is closed at the end of the block; it draws nothing before its first call."""
    display = ProgressDisplay(quiet=quiet, unit=unit)
    try:
        yield display
    finally:
        display.close()


class _Count(ProgressColumn):
    """The count and the unit: ``12 of 607 files``."""

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(_count(task.completed, task.total or 0, self._unit))


def _count(done: float, total: float, unit: Unit) -> str:
    match unit:
        case "bytes":
            return f"{decimal(int(done))} of {decimal(int(total))}"
        case "seconds":
            whole = f" of {timedelta(seconds=int(total))}" if total else ""
            return f"{timedelta(seconds=int(done))}{whole} of audio"
        case _:
            return f"{int(done)} of {int(total)} {unit}".rstrip()
