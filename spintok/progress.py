"""The callback through which long calls report their progress; ``spintok.cli.progress`` draws it."""

from typing import Protocol

__all__ = ["Progress", "no_progress"]


class Progress(Protocol):
    """Called again and again during a long call."""

    def __call__(self, task: str, done: float, total: float, note: str = "") -> None:
        """Report that ``done`` of ``total`` is finished.

        Args:
            task: names the task and stays the same for its duration: ``"encoding"``, ``"bootstrap"``.
            done, total: amounts in the task's unit, such as files, bytes or steps; a total of 0 is unknown.
            note: text to show beside the count, such as the speed or the loss.
        """


def no_progress(task: str, done: float, total: float, note: str = "") -> None:
    """A ``Progress`` that shows nothing."""
