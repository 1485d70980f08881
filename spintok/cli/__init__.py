"""The command line. ``app`` declares the commands; each command has a module that parses, calls and prints."""

import os
import sys
import warnings

from spintok.cli import signals
from spintok.cli.exit_codes import FAILED, INTERRUPTED, USAGE
from spintok.cli.output import complain, show_warning

__all__ = ["FAILED", "INTERRUPTED", "USAGE", "main"]

_CAUSES: dict[type[OSError], str] = {
    FileExistsError: "a file of this name exists where a folder is to be made; choose another name",
    NotADirectoryError: "part of this path is a file, not a folder",
    FileNotFoundError: "no such file or folder",
}
"""What the system's words leave unclear."""


def main() -> None:
    """Run the command line and exit; an error is one line on standard error and a non-zero exit code."""
    signals.install()
    warnings.showwarning = show_warning
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that is not UTF-8 must not end the run over a name.
            stream.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        from spintok.cli.app import app

        code = app(args=[a for a in arguments if a != "--debug"], standalone_mode=False, prog_name="spintok") or 0
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has left; flushing at exit must not raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except (Exception, KeyboardInterrupt) as error:
        # An interrupted library may raise anything.
        if signals.stop_requested() or isinstance(error, KeyboardInterrupt):
            code = INTERRUPTED
        elif debug:
            raise
        else:
            code = USAGE
            # `spintok` without arguments has printed its help and raises without a message.
            if message := _message(error):
                complain(message)
    if code == INTERRUPTED:
        signals.tell_stopped()
    signals.default_handling()
    sys.exit(code)


def _message(error: Exception) -> str:
    # Errors in arguments have this method; their class is private to typer.
    if hasattr(error, "format_message"):
        return str(error.format_message()).replace(": Value error, ", ": ")
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{os.fsdecode(error.filename)}: {_CAUSES.get(type(error), error.strerror)}"
    if isinstance(error, OSError) and error.errno is not None and error.strerror is not None:
        # Without the number, which Python puts before the words.
        return error.strerror
    return str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
