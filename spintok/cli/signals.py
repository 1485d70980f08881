"""Ctrl-C and SIGTERM end a command with one message and exit code 130.

Every command writes its results so that a process may be killed at any moment; stopping early is therefore always
safe. A ``KeyboardInterrupt`` lets open files and bars be closed first. It is not raised inside an import, where
extension modules turn it into other errors or swallow it: there the process ends at once.
"""

import os
import signal
import sys
import threading
from types import FrameType

from spintok.cli.exit_codes import INTERRUPTED
from spintok.cli.output import complain

__all__ = ["default_handling", "install", "stop_requested", "tell_stopped"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)

CLEANUP_SECONDS = 10.0
"""Time that the interrupted command has for closing its files before the process ends regardless."""

_stop_requested = False
_process = 0


def install() -> None:
    """Handle both signals from now on, unless this process was started to ignore them (``nohup``, ``&``)."""
    global _stop_requested, _process
    _stop_requested, _process = False, os.getpid()
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _stop)


def default_handling() -> None:
    """Let a signal end the process silently: all work is done, and the interpreter is shutting down."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is _stop:
                signal.signal(number, signal.SIG_DFL)


def stop_requested() -> bool:
    """Return whether a signal came since ``install``."""
    return _stop_requested


def tell_stopped() -> None:
    """Print the message of an interrupted command."""
    complain("stopped; run the same command again to go on")


def _stop(number: int, frame: FrameType | None) -> None:
    global _stop_requested
    if os.getpid() != _process:
        # A forked worker ends as any process does.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    if _stop_requested or _importing(frame):
        _exit_now()
    _stop_requested = True
    # Someone may swallow the exception: a callback from C, a destructor.
    watchdog = threading.Timer(CLEANUP_SECONDS, _exit_now)
    watchdog.daemon = True
    watchdog.start()
    raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _exit_now() -> None:
    if sys.stderr.isatty():
        # A progress bar hides the cursor.
        sys.stderr.write("\x1b[?25h")
    tell_stopped()
    sys.stderr.flush()
    os._exit(INTERRUPTED)
