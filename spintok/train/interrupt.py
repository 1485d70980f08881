"""Ctrl-C and SIGTERM during training: finish the step, save a checkpoint, then stop."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

__all__ = ["StopRequest"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Catches the first SIGINT or SIGTERM while its block runs; a second one is handled as before the block.

    Outside the main thread, which alone receives signals, and for signals that the process ignores (``nohup``), it does
    nothing.

    Attributes:
        requested: whether a signal has come.
    """

    def __init__(self, message: Callable[[str], None]) -> None:
        """Args: ``message`` prints a line."""
        self.requested = False
        self._message = message
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                # None: a handler that was not installed from Python, and could not be put back.
                if handler not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._catch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()
        name = signal.Signals(number).name
        self._message(f"{name}: saving a checkpoint after this step; a second signal stops at once")

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)
