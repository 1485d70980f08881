"""The log of a training run: CSV tables, progress for the terminal, and TensorBoard event files on request."""

import csv
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from spintok._files import atomic, require
from spintok.progress import Progress

__all__ = ["Log", "Table"]


class Table:
    """A CSV file whose rows each have a ``step``.

    Attributes:
        last: the step of the last row; 0 without rows.
    """

    def __init__(self, path: Path, step: int) -> None:
        """Open or create the file, and remove the rows after ``step``, from which the run resumes."""
        self.last = 0
        self._path = path
        self._columns: list[str] = []
        rows: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                # If the run was killed while writing a row, the row is incomplete.
                rows = [row for row in reader if None not in row.values() and int(row["step"]) <= step]
                self._columns = list(reader.fieldnames or []) if rows else []
                self.last = int(rows[-1]["step"]) if rows else 0
        with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            if rows:
                writer.writeheader()
            writer.writerows(rows)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; all rows have the columns of the first."""
        with self._path.open("a", newline="", encoding="utf-8") as file:
            if not self._columns:
                self._columns = list(row)
                csv.DictWriter(file, self._columns, lineterminator="\n").writeheader()
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(row)
        self.last = int(row["step"])


class Log:
    """The log of a run; use it as a context manager.

    Args:
        folder: holds ``log.csv``, ``checks.csv`` and event files; None in processes of rank above 0, which log nothing.
        step: the step that the run resumes from.
        steps: number of steps of the whole run.
        tensorboard: whether to write event files.
        progress, message: report progress and print a line.

    Raises:
        ValueError: TensorBoard is requested but not installed.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        step: int,
        steps: int,
        tensorboard: bool,
        progress: Progress,
        message: Callable[[str], None],
    ) -> None:
        self._steps = Table(folder / "log.csv", step) if folder else None
        self._checks = Table(folder / "checks.csv", step) if folder else None
        self._board = _tensorboard_writer(folder) if folder and tensorboard else None
        self._total = steps
        self._progress = progress
        self._message = message
        self._note = ""
        self._last = time.monotonic()
        self._seconds = 0.0

    def __enter__(self) -> "Log":
        self._last = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.close()

    def advance(self, step: int, seconds: float) -> None:
        """Report that update ``step`` is done; it processed ``seconds`` of audio."""
        self._seconds += seconds
        if self._steps is not None:
            self._progress("training steps", step, self._total, self._note)

    def statistics(self, step: int, values: Mapping[str, float], position: tuple[int, int], rate: float) -> None:
        """Write the statistics of a step, its epoch and batch, its learning rate, and the speed since the last call."""
        now = time.monotonic()
        speed = self._seconds / max(now - self._last, 1e-9)
        self._last, self._seconds = now, 0.0
        if self._steps is None:
            return
        row = {"step": step, "epoch": position[0], "batch": position[1], **values, "learning_rate": rate}
        self._steps.add({**row, "real_time": round(speed, 2)})
        self._write_events(step, {**values, "learning_rate": rate, "real_time": speed}, "train")
        short = [f"{name.replace('_', ' ')} {value:.3g}" for name, value in values.items() if name != "gradient_norm"]
        self._note = ", ".join([*short, f"{speed:.0f} x real time"])
        if step == self._total:
            self._message(f"step {step} of {self._total}: {self._note}")

    def has_check(self, step: int) -> bool:
        """Whether the results of validation after ``step`` are written."""
        return self._checks is not None and self._checks.last == step

    def check(self, step: int, values: Mapping[str, float]) -> None:
        """Write the results of a validation."""
        if self._checks is None:
            return
        self._checks.add({"step": step, **values})
        self._write_events(step, values, "check")
        self._message(f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
        # The speed is that of training, without the validation.
        self._last, self._seconds = time.monotonic(), 0.0

    def _write_events(self, step: int, values: Mapping[str, float], group: str) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{group}/{name}", value, step)


def _tensorboard_writer(folder: Path) -> Any:
    require("tensorboard", extra="train", purpose="loop.tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))
