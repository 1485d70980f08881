"""What a run tells: a table on disk, a bar on the terminal, and TensorBoard's files when asked for."""

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from spintok._files import atomic

__all__ = ["Log", "Table"]

LINE_SECONDS = 30.0
"""Between lines about the progress where there is no terminal to draw a bar on."""


class Table:
    """A CSV file of rows that each have a ``step``; rows after the step that a run resumes from are taken out."""

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        self._columns: list[str] = []
        rows: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                # A row that was being written when the run was killed lacks its end.
                rows = [row for row in reader if None not in row.values() and int(row["step"]) <= step]
                self._columns = list(reader.fieldnames or []) if rows else []
        with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            if rows:
                writer.writeheader()
            writer.writerows(rows)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; all have the columns of the first."""
        with self._path.open("a", newline="", encoding="utf-8") as file:
            if not self._columns:
                self._columns = list(row)
                csv.DictWriter(file, self._columns, lineterminator="\n").writeheader()
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(row)


class Log:
    """The log of a run; use it as a context manager. A rank other than 0 gives no ``folder`` and tells nothing."""

    def __init__(self, folder: Path | None, console: Console, *, step: int, steps: int, tensorboard: bool) -> None:
        """Raises ``ValueError`` when TensorBoard is asked for and not installed."""
        self._steps = Table(folder / "log.csv", step) if folder else None
        self._checks = Table(folder / "checks.csv", step) if folder else None
        self._board = _board(folder) if folder and tensorboard else None
        self._bar = Progress(
            TextColumn("step {task.completed:.0f} of {task.total:.0f}"),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=console,
            disable=folder is None or not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=steps, completed=step)
        self._console = console
        self._last = self._told = time.monotonic()
        self._seconds = 0.0
        self._total = steps

    def __enter__(self) -> "Log":
        self._bar.start()
        self._last = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._board is not None:
            self._board.close()

    def advance(self, step: int, seconds: float) -> None:
        """``step`` updates are done; the last took in ``seconds`` of audio."""
        self._seconds += seconds
        self._bar.update(self._task, completed=step)

    def figures(self, step: int, figures: Mapping[str, float], place: tuple[int, int], rate: float) -> None:
        """Write the figures of a step, with its place in the data and learning rate, and the speed since the last."""
        now = time.monotonic()
        speed = self._seconds / max(now - self._last, 1e-9)
        self._last, self._seconds = now, 0.0
        if self._steps is None:
            return
        row = {"step": step, "epoch": place[0], "batch": place[1], **figures, "learning_rate": rate}
        self._steps.add({**row, "real_time": round(speed, 2)})
        self._write_board(step, {**figures, "learning_rate": rate, "real_time": speed}, "train")
        short = ", ".join(
            f"{name.replace('_', ' ')} {value:.3g}" for name, value in figures.items() if name != "gradient_norm"
        )
        told = f"{short}, {speed:.0f} x real time"
        self._bar.update(self._task, description=told)
        if not self._console.is_terminal and (now - self._told > LINE_SECONDS or step == self._total):
            # A log file has no bar.
            self._told = now
            self._console.print(f"step {step} of {self._total}: {told}", highlight=False)

    def check(self, step: int, figures: Mapping[str, float]) -> None:
        """Write the figures of the development set."""
        if self._checks is None:
            return
        self._checks.add({"step": step, **figures})
        self._write_board(step, figures, "check")
        self._console.print(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
        # The check is not the loop's time.
        self._last, self._seconds = time.monotonic(), 0.0

    def _write_board(self, step: int, figures: Mapping[str, float], group: str) -> None:
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(f"{group}/{name}", value, step)


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except (ImportError, OSError, RuntimeError) as error:
        raise ValueError(f"loop.tensorboard needs TensorBoard: pip install 'spintok[train]' ({error})") from None
    return SummaryWriter(str(folder))
